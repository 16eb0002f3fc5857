/* Who is signed in, on pages that are the same for everybody. The cookie config.hint is set at login and cleared at
 * logout; its value, which says nothing, differs by login. config.me answers with the userId, and is asked once a login.
 */
PART((next, config) => {
  const hint = ("; " + document.cookie).split(`; ${config.hint}=`)[1];
  const login = hint && hint.split(";")[0];
  let known;
  try {
    known = localStorage[config.hint];
    // Somebody has signed out, or somebody else in: what follows is not the former visitor's.
    if (known && known != login) {
      analytics.reset();
      delete localStorage[config.hint];
    }
  } catch (_) {}
  next();
  if (login && login != known)
    fetch(config.me)
      .then((response) => response.json())
      .then(({ userId }) => {
        if (!userId) return;
        window.analytics.identify(userId);
        localStorage[config.hint] = login;
      })
      .catch(() => {});
});
