// Calls that not every server of this page has yet.

export const features = { me: false, counts: false, request: false };
