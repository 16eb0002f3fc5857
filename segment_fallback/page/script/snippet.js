/* The page's script, in readable form. The tag renders snippet.min.js, made from this by `make script`.
 *
 * It loads analytics.js and makes one page call. If that call cannot be delivered, the same page view, with
 * the same messageId, goes to the site's own pixel. ES2015; no dependency; fails silent.
 *
 * config (from page/snippet.py):
 *   k  write key            u  URL of analytics.js       o  options of analytics.load
 *   a  arguments of analytics.page: category, name, properties
 *   p  URL of the pixel, up to the messageId             t  page token; c names its cookie and what is kept
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

  var view, settled;

  // Page views that the pixel could not take, for the next page to send again.
  function kept() {
    try {
      return JSON.parse(localStorage[config.c]) || [];
    } catch (_) {
      return [];
    }
  }

  function keep(view) {
    // Segment takes a page view of long ago, but nobody wants one that fails for ever.
    if (Date.now() - view.d > 864e5) return;
    try {
      localStorage[config.c] = JSON.stringify(kept().concat([view]).slice(-20));
    } catch (_) {}
  }

  function send(view, leaving, again) {
    var path = config.p + view.i;
    // Cut so that the request line fits the 4,094 bytes that gunicorn takes.
    var data = JSON.stringify([
      view.p.s.slice(0, 700),
      view.p.t.slice(0, 200),
      view.p.r.slice(0, 700),
      (view.p.c || "").slice(0, 400),
      Intl.DateTimeFormat().resolvedOptions().timeZone,
      Date.now() - view.d,
    ]);
    data = encodeURIComponent(data).replace(/%(..)/g, function (_, hex) {
      return String.fromCharCode("0x" + hex);
    });
    data = "/" + btoa(data).replace(/\+/g, "-").replace(/\//g, "_").replace(/=/g, "");
    if (navigator.cookieEnabled)
      document.cookie =
        config.c + "=" + view.t + ";path=" + path + ";max-age=60;samesite=strict" +
        (location.protocol == "https:" ? ";secure" : "");
    else data += "/" + view.t;
    path += data;
    if (again)
      // Under the name of the page that it was: only fetch can say so.
      fetch(path, { referrer: view.p.u, referrerPolicy: "same-origin", keepalive: true }).then(
        function (response) {
          if (response.status == 503) keep(view);
        },
        function () {
          keep(view);
        }
      );
    // A browser may cancel an image that a page starts just before it is left; a beacon it sends.
    else if (!(leaving && navigator.sendBeacon && navigator.sendBeacon(path))) {
      var image = new Image();
      image.onerror = function () {
        keep(view);
      };
      image.referrerPolicy = "same-origin";
      image.src = path;
    }
  }

  function fallBack(event) {
    // analytics.js was told to send nothing: then neither do we.
    var ready = window.analytics;
    if (settled || (ready.initialized && ready.settings && ready.settings.writeKey === "")) return;
    settled = true;
    try {
      send(view, document.visibilityState == "hidden" || (event && event.type == "pagehide"));
    } catch (_) {}
  }

  function delivered(context) {
    var failure = context && context.failedDelivery && context.failedDelivery();
    var unsent =
      context && context.logs && context.logs().some(function (log) { return log.message == "Error sending event"; });
    if (unsent || (failure && failure.reason && failure.reason.type != "middleware_cancellation")) fallBack();
    else settled = true;
  }

  function start() {
    view = {
      // Minted here, for this page view: one that was rendered would repeat with every cached copy.
      i: [].map.call(crypto.getRandomValues(new Uint8Array(16)), function (byte) {
        return (256 + byte).toString(16).slice(1);
      }).join(""),
      p: pageContext(),
      t: config.t,
      d: Date.now(),
    };
    analytics.load(config.k, config.o);
    analytics.page(config.a[0], config.a[1], config.a[2], { messageId: view.i }, delivered);
    setTimeout(fallBack, config.w);
    addEventListener("pagehide", fallBack);
    document.addEventListener("visibilitychange", function () {
      if (document.visibilityState == "hidden") fallBack();
    });
    var waiting = kept();
    if (waiting[0]) {
      localStorage.removeItem(config.c);
      waiting.forEach(function (view) {
        send(view, 0, 1);
      });
    }
  }

  if (document.prerendering) document.addEventListener("prerenderingchange", start, { once: true });
  else start();
})(CONFIG);
