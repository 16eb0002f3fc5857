/* Views without a page load. config.auto: find them by what htmx, Turbo and the history say; else the page's own code
 * calls segmentFallback.page({name, category, properties}), all of them optional.
 *
 * A view is a new path or query that is pushed, or gone back or forward to. It is reported when its page is in place:
 * Turbo and htmx, whose entries in the history have their name, say when; a router of the page's own is given a moment.
 */
PART((next, config, core) => {
  const hook = (window.segmentFallback = window.segmentFallback || {});
  // What the server has rendered for a page, by its path with and without the query.
  const pages = (hook.pages = hook.pages || {});
  const here = () => location.pathname + location.search;
  const owners = {};
  const { reportView } = core;
  // `pending` is the context of a page that is not yet reported; `by`, whose word it waits for: 1 Turbo, 2 htmx, 3
  // htmx, which restores; `absent`, that the page has not yet come.
  let seen, pending, by, absent, timer;

  // The pixel's URL has not much room, and the server takes texts and an object only.
  function describe(path, category, name, properties) {
    try {
      const text = JSON.stringify([path, category, name, properties]);
      if (encodeURIComponent(text).replace(/%../g, "x").length < 1000) return text;
    } catch (_) {}
    return JSON.stringify([path, category && category.slice(0, 100), name && name.slice(0, 100), null]);
  }

  function view(details, context = core.pageContext(), fresh) {
    const { category, name, properties } = details || {};
    const text = (value) => (value ? "" + value : null);
    const path = context.p;
    const url = path + context.s;
    const rendered = !details && (pages[url] || pages[path]);
    const call = rendered ? rendered.a : [text(category), text(name), Object.assign({}, properties)];
    const own = { referrer: location.origin + seen };
    // Where nobody changes the head, a canonical link stays when the page does; it is that of the page it came with.
    if (fresh || !owners[context.c]) owners[context.c] = path;
    if (owners[context.c] != path || url != here()) {
      context.c = "";
      Object.assign(own, { path, search: context.s, title: context.t, url: location.origin + url });
    }
    context.r = own.referrer;
    clearTimeout(timer);
    pending = 0;
    seen = url;
    core.reportView(
      [call[0], call[1], Object.assign(own, call[2])],
      (rendered || config).t,
      context,
      rendered ? "" : describe(path, ...call)
    );
  }

  // What fails here is not the page's to suffer.
  const safely = (action) => (...all) => {
    try {
      action(...all);
    } catch (_) {}
  };

  hook.page = safely((details) => view(details));

  // Consent may come later than the first page has gone.
  const entry = performance.getEntriesByType("navigation")[0];
  const start = new URL(entry ? entry.name : location.href);
  const moved = start.pathname != location.pathname;
  seen = moved ? start.pathname + start.search : here();
  pages[start.pathname] = pages[start.pathname + start.search] = config;
  core.reportView = (...first) => {
    core.reportView = reportView;
    const { c } = first[2];
    if (moved) view();
    else {
      owners[c] = location.pathname;
      return reportView(...first);
    }
  };

  const on = (type, action) => document.addEventListener(type, safely(({ detail }) => action(detail)));

  if (config.auto) {
    // The page is left, or another comes: what is known of it now must do.
    const flush = safely(() => {
      if (pending && !absent)
        pending.p + pending.s == here() ? view() : view(0, Object.assign(pending, { t: document.title }));
    });

    const turned = (state, back) => {
      clearTimeout(timer);
      const { turbo, htmx } = state || 0;
      pending = here() != seen && core.pageContext();
      by = turbo ? 1 : htmx ? 2 + back : 0;
      absent = by && back;
      if (pending && !absent && by != 1) timer = setTimeout(flush, 500);
    };

    const { pushState, replaceState } = history;
    history.pushState = function (state) {
      flush();
      pushState.apply(history, arguments);
      turned(state, 0);
    };
    // No view; but Turbo visits may replace the page, and say so later. Page code keeps the state that is there.
    const visit = (state) => ((state || 0).turbo || 0).restorationIdentifier;
    history.replaceState = function (state) {
      const turbo = visit(state) && visit(state) != visit(history.state);
      replaceState.apply(history, arguments);
      if (pending) pending = core.pageContext();
      else if (!turbo) seen = here();
    };
    addEventListener("popstate", (event) => {
      flush();
      turned(event.state, 1);
    });
    ["pagehide", "visibilitychange"].map((type) =>
      addEventListener(type, () => (type == "pagehide" || document.hidden) && flush(), true)
    );

    on("turbo:load", () => here() != seen && view(0, undefined, 1));
    on("htmx:historyRestore", () => pending && view());
    on("htmx:afterSettle", () => pending && by == 2 && view());
    // htmx 4 says this of every swap; while a page is restored, another swap may end.
    on("htmx:finally:swap", ({ ctx }) => {
      if (pending && (by == 2 || (by == 3 && ctx.request.headers["HX-History-Restore-Request"]))) view();
    });
  }
  next();
});
