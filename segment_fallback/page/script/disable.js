/* analytics.load({disable: true}): where analytics.js is blocked, nobody else would know of it. */
PART((next, config, core) => {
  const { analytics } = window;
  const unless = (action) => (...all) => (analytics._loadOptions || 0).disable === true || action(...all);
  core.sendPixel = unless(core.sendPixel);
  core.fallBack = unless(core.fallBack);
  next();
});
