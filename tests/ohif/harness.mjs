// Runs OHIF's published SR extension and Cornerstone's adapters on SR files, without a browser.
//
//   node harness.mjs images.json sr.dcm...
//
// images.json: [{ sopInstanceUID, frame, frameOfReferenceUID, imagePositionPatient, rowCosines, columnCosines,
// spacing }]: the images that the viewer has open. Prints a JSON line for each file and each version of
// the adapters: what OHIF would show, draw, make measurements of its own, and why its load threw if it did. OHIF's application around the
// extension (services, React, rendering) is stood in for; the SR code is OHIF's own, unchanged.

import fs from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { setPlane } from '@cornerstonejs/core';
import dcmjs from 'dcmjs';
import * as glMatrix from 'gl-matrix';

const EXTENSION = '@ohif/extension-cornerstone-dicom-sr';
const here = path.dirname(fileURLToPath(import.meta.url));
const require = createRequire(import.meta.url);
const { version } = require(`./node_modules/${EXTENSION}/package.json`);

// The adapters that this OHIF was published with, and the newest that we pin.
const ADAPTERS = [`./node_modules/${EXTENSION}/node_modules/@cornerstonejs/adapters`, './node_modules/@cornerstonejs/adapters'];

const SOP_CLASSES = {
  BasicTextSR: '1.2.840.10008.5.1.4.1.1.88.11',
  EnhancedSR: '1.2.840.10008.5.1.4.1.1.88.22',
  ComprehensiveSR: '1.2.840.10008.5.1.4.1.1.88.33',
  Comprehensive3DSR: '1.2.840.10008.5.1.4.1.1.88.34',
};
const TOOLS = [
  'RectangleROI', 'Probe', 'Length', 'Bidirectional', 'EllipticalROI', 'CircleROI', 'PlanarFreehandROI',
  'ArrowAnnotate', 'Angle', 'CobbAngle',
];

// A name of anything that only a browser has: it can be read, called and constructed, and does nothing.
const nothing = () =>
  new Proxy(function () {}, {
    get: (target, key) =>
      key === Symbol.toPrimitive ? () => 'nothing' : key === 'prototype' ? target.prototype : nothing(),
    apply: () => nothing(),
    construct: () => ({}),
  });
const orNothing = (known) => new Proxy(known, { get: (target, key) => (key in target ? target[key] : nothing()) });

/** OHIF's extension, its imports given by us; `drawn` collects the annotations that it adds. */
function loadExtension(adapters, drawn) {
  const core = {
    default: { utils: { guid: () => 'uid' } },
    utils: {
      sopClassDictionary: SOP_CLASSES,
      guid: () => 'uid',
      sortStudyInstances: (instances) => instances,
      sortDisplaySetsCopy: (displaySets) => displaySets,
    },
    classes: {
      MetadataProvider: {
        getUIDsFromImageID: (imageId) => {
          const [SOPInstanceUID, frame] = imageId.split('|');
          return { SOPInstanceUID, frameNumber: Number(frame) };
        },
      },
      ImageSet: class {},
    },
    DicomMetadataStore: {},
    log: nothing(),
  };
  const imports = {
    '@ohif/core': core,
    '@ohif/extension-cornerstone': orNothing({
      Enums: { CORNERSTONE_3D_TOOLS_SOURCE_NAME: 'Cornerstone3DTools', CORNERSTONE_3D_TOOLS_SOURCE_VERSION: '0.1' },
    }),
    '@cornerstonejs/adapters': adapters,
    '@cornerstonejs/core': orNothing({
      Enums: nothing(),
      utilities: { imageToWorldCoords, updatePlaneRestriction: () => {} },
      metaData: { get: (_, imageId) => planeOf(imageId) },
    }),
    '@cornerstonejs/tools': new Proxy(
      { annotation: { state: { addAnnotation: (annotation) => drawn.push(annotation) }, locking: {} } },
      { get: (target, key) => (key in target ? target[key] : /Tool$/.test(String(key)) ? class {} : nothing()) }
    ),
    'gl-matrix': glMatrix,
  };
  const source = fs.readFileSync(
    path.join(here, 'node_modules', EXTENSION, 'dist/ohif-extension-cornerstone-dicom-sr.umd.js'),
    'utf8'
  );
  const module = { exports: {} };
  new Function('module', 'exports', 'require', source)(module, module.exports, (name) => imports[name] ?? nothing());
  return module.exports.default ?? module.exports;
}

const { utilities: { imageToWorldCoords } } = await import('@cornerstonejs/core');
const images = JSON.parse(fs.readFileSync(process.argv[2], 'utf8'));
const imageIdOf = (image) => `${image.sopInstanceUID}|${image.frame}`;
const byId = new Map(images.map((image) => [imageIdOf(image), image]));
images.forEach((image) => setPlane(imageIdOf(image), image));
function planeOf(imageId) {
  const image = byId.get(imageId);
  return image && { ...image, frameOfReferenceUID: image.frameOfReferenceUID, usingDefaultValues: false };
}

async function look(file, folder) {
  const adapters = await import(`${folder}/dist/esm/index.js`);
  const bytes = fs.readFileSync(file);
  const { dict } = dcmjs.data.DicomMessage.readFile(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
  const instance = dcmjs.data.DicomMetaDictionary.naturalizeDataset(dict);
  const drawn = [];
  const extension = loadExtension(adapters, drawn);
  const displaySet = {
    displaySetInstanceUID: 'images',
    StudyInstanceUID: instance.StudyInstanceUID,
    FrameOfReferenceUID: images[0]?.frameOfReferenceUID,
    unsupported: false,
  };
  const servicesManager = {
    services: {
      displaySetService: { activeDisplaySets: [displaySet], subscribe() {}, EVENTS: {} },
      measurementService: { getSourceMappings: () => TOOLS.map((annotationType) => ({ annotationType })) },
      customizationService: { getCustomization: () => undefined },
    },
  };
  const source = { getImageIdsForDisplaySet: () => images.map(imageIdOf), retrieve: {} };
  const extensionManager = { getDataSources: () => [source], getActiveDataSource: () => [source] };
  const [handler] = extension.getSopClassHandlerModule({ servicesManager, extensionManager });
  const [shown] = handler.getDisplaySetsFromSeries([instance]);
  let throws = '';
  try {
    await shown.load();
  } catch (error) {
    throws = String(error.message);
  }
  const labels = [];
  let hydrated = 0;
  if (!throws && shown.isRehydratable) {
    const toImageId = Object.fromEntries(images.map((one) => [`${one.sopInstanceUID}:${one.frame}`, imageIdOf(one)]));
    const metadata = { get: (_, imageId) => planeOf(imageId) };
    const state = adapters.adaptersSR.Cornerstone3D.MeasurementReport.generateToolState(instance, toImageId, metadata);
    for (const measurement of Object.values(state).flat()) {
      hydrated += 1;
      labels.push({
        label: measurement.annotation.data.label ?? null,
        finding: measurement.description ?? null,
        sites: (measurement.findingSites ?? []).map((site) => (Array.isArray(site) ? site[0] : site).CodeMeaning),
        points: measurement.annotation.data.handles.points.map((point) => Array.from(point)),
      });
    }
  }
  return {
    file: path.basename(file),
    ohif: version,
    adapters: require(`${folder}/package.json`).version,
    measurements: shown.isImagingMeasurementReport,
    drawn: drawn.filter((annotation) => annotation.data.handles.points?.length).length,
    hydrated,
    labels,
    throws,
  };
}

const say = console.log;
for (const level of ['log', 'info', 'warn', 'error', 'debug']) console[level] = () => {};
for (const file of process.argv.slice(3)) {
  for (const folder of ADAPTERS) say(JSON.stringify(await look(file, folder)));
}
