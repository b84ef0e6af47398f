// The adapters import these for segmentations, which no SR of ours has.
export const utilities = { contours: {}, segmentation: {}, throttle: (call) => call };
export const annotation = {};
