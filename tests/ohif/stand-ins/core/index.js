// What the adapters ask of Cornerstone3D itself, which needs a browser: a plane of an image, and names.
const planes = new Map();

/** Says where an image lies: { imagePositionPatient, rowCosines, columnCosines, spacing: [between rows, columns] }. */
export const setPlane = (imageId, plane) => planes.set(imageId, plane);

const logger = { getLogger: () => logger };
for (const level of ['trace', 'debug', 'info', 'warn', 'error']) logger[level] = () => {};

// As Cornerstone3D: image coordinates count from the outer corner of the first pixel.
const imageToWorldCoords = (imageId, [column, row]) => {
  const { imagePositionPatient, rowCosines, columnCosines, spacing } = planes.get(imageId);
  return [0, 1, 2].map(
    (axis) =>
      imagePositionPatient[axis] +
      rowCosines[axis] * spacing[1] * (column - 0.5) +
      columnCosines[axis] * spacing[0] * (row - 0.5)
  );
};

const names = new Proxy({}, { get: (_, name) => String(name) });

export const utilities = {
  imageToWorldCoords,
  logger: { adaptersLog: logger },
  throttle: (call) => call,
  updatePlaneRestriction: () => {},
};
export const Enums = { MetadataModules: names, Events: names };
export const metaData = { get: () => undefined, addProvider: () => {} };
export const cache = {};
export const eventTarget = {};
export const imageLoader = {};
export const triggerEvent = () => {};
