/* The page's script, in readable form. The tag renders snippet.min.js, made from this by `make script`.
 *
 * It loads analytics.js and makes one page call. If that call cannot be delivered, the same page view, with
 * the same messageId, goes to the site's own pixel. ES2015; no dependency; fails silent.
 *
 * config (from page/snippet.py):
 *   k  write key            u  URL of analytics.js       o  options of analytics.load
 *   a  arguments of analytics.page: category, name, properties
 *   p  URL of the pixel, up to the messageId             t  page token, and the name of its cookie in c
 *   h  origin of the CDN, which the library itself recognises over https only
 *   w  milliseconds to wait for analytics.js             g, d  honour Global Privacy Control, Do Not Track
 */
(function (config) {
  var analytics = (window.analytics = window.analytics || []);
  if (analytics.initialize || analytics.invoked) return;
  analytics.invoked = true;
  analytics.methods = (
    "trackSubmit trackClick trackLink trackForm pageview identify reset group track ready alias debug page screen " +
    "once off on addSourceMiddleware addIntegrationMiddleware addDestinationMiddleware setAnonymousId register"
  ).split(" ");

  function pageContext() {
    var canonical = document.querySelector("link[rel=canonical]");
    return {
      __t: "bpc",
      c: (canonical && canonical.getAttribute("href")) || undefined,
      p: location.pathname,
      u: location.href,
      s: location.search,
      t: document.title,
      r: document.referrer,
    };
  }

  // Until analytics.js arrives, calls wait in this array, each with the page as it was when the call was made.
  analytics.factory = function (method) {
    return function () {
      if (window.analytics.initialized) return window.analytics[method].apply(window.analytics, arguments);
      var call = [method].concat([].slice.call(arguments));
      if (/^(track|screen|alias|group|page|identify)$/.test(method)) call.push(pageContext());
      analytics.push(call);
      return analytics;
    };
  };
  analytics.methods.forEach(function (method) {
    analytics[method] = analytics.factory(method);
  });

  analytics.load = function (key, options) {
    var script = document.createElement("script");
    script.async = true;
    script.setAttribute("data-global-segment-analytics-key", "analytics");
    script.src = config.u;
    // Neither an empty answer nor a surrogate defines what Segment's own build does.
    script.onload = function () {
      if (!("analyticsWriteKey" in window)) fallBack();
    };
    script.onerror = fallBack;
    (document.head || document.documentElement).appendChild(script);
    analytics._loadOptions = options;
  };
  analytics._writeKey = config.k;
  analytics._cdn = config.h;

  if ((config.g && navigator.globalPrivacyControl) || (config.d && navigator.doNotTrack == 1)) return;

  var page, messageId, settled;

  function fallBack(event) {
    // analytics.js was told to send nothing: then neither do we.
    var ready = window.analytics;
    if (settled || (ready.initialized && ready.settings && ready.settings.writeKey === "")) return;
    settled = true;
    var path = config.p + messageId;
    document.cookie =
      config.c + "=" + config.t + ";path=" + path + ";max-age=60;samesite=strict" +
      (location.protocol == "https:" ? ";secure" : "");
    // Cut so that the request line fits the 4,094 bytes that gunicorn takes.
    var data = JSON.stringify([
      page.s.slice(0, 700),
      page.t.slice(0, 200),
      page.r.slice(0, 700),
      (page.c || "").slice(0, 400),
      Intl.DateTimeFormat().resolvedOptions().timeZone,
    ]);
    data = encodeURIComponent(data).replace(/%(..)/g, function (_, hex) {
      return String.fromCharCode("0x" + hex);
    });
    path += "/" + btoa(data).replace(/\+/g, "-").replace(/\//g, "_").replace(/=/g, "");
    // A browser may cancel an image that a page starts just before it is left; a beacon it sends.
    var leaving = document.visibilityState == "hidden" || (event && event.type == "pagehide");
    if (leaving && navigator.sendBeacon && navigator.sendBeacon(path)) return;
    var image = new Image();
    image.referrerPolicy = "same-origin";
    image.src = path;
  }

  function delivered(context) {
    var failure = context && context.failedDelivery && context.failedDelivery();
    var unsent =
      context && context.logs && context.logs().some(function (log) { return log.message == "Error sending event"; });
    if (unsent || (failure && failure.reason && failure.reason.type != "middleware_cancellation")) fallBack();
    else settled = true;
  }

  function start() {
    // Minted here, for this page view: one that was rendered would repeat with every cached copy.
    messageId = [].map.call(crypto.getRandomValues(new Uint8Array(16)), function (byte) {
      return (256 + byte).toString(16).slice(1);
    }).join("");
    page = pageContext();
    analytics.load(config.k, config.o);
    analytics.page(config.a[0], config.a[1], config.a[2], { messageId: messageId }, delivered);
    setTimeout(fallBack, config.w);
    addEventListener("pagehide", fallBack);
    document.addEventListener("visibilitychange", function () {
      if (document.visibilityState == "hidden") fallBack();
    });
  }

  if (document.prerendering) document.addEventListener("prerenderingchange", start, { once: true });
  else start();
})(CONFIG);
