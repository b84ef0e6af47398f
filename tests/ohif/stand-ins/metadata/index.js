export const utilities = {};
