/* The Tracking API is the site's own, at config.api. A blocker may have replaced `fetch` by one that only pretends: then
 * analytics.js believes that it delivered, but the browser knows of no request.
 */
PART((next, config, core) => {
  const { settle } = core;
  let last = 0;
  try {
    // Unlike performance.getEntries() an observer misses nothing, however many requests a page makes.
    new PerformanceObserver((list) =>
      list.getEntries().forEach((entry) => {
        if (entry.name.indexOf(location.origin + config.api) == 0) last = performance.timeOrigin + entry.startTime;
      })
    ).observe({ type: "resource", buffered: true });
  } catch (_) {
    last = Infinity; // an old browser, in which nobody can know
  }
  core.settle = (view, failure) => {
    if (failure) settle(view);
    // The entry may come a little after the callback; clocks differ by some milliseconds.
    else setTimeout(() => (last > view.d - 100 ? settle(view) : core.fallBack()), 1000);
  };
  next();
});
