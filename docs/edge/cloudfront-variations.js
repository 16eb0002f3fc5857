// A CloudFront Function (runtime 2.0) for viewer requests of the default behaviour, with VARIATIONS "edge". It leaves
// of the cookies only genuine ones of variations, so that nobody can fill the cache with copies of his own. The cache
// policy of pages then has `CookieBehavior: whitelist` with the names of KNOWN. docs/how-to/personalisation.md says more.
// The next two lines are replaced by what `manage.py segment_variations --cloudfront` prints.
var KNOWN = {};
var ONLY = new RegExp("");

function handler(event) {
  var request = event.request;
  var kept = {};
  if (ONLY.test(request.uri) && (request.method === "GET" || request.method === "HEAD")) {
    Object.keys(KNOWN).forEach(function (name) {
      var cookie = request.cookies[name];
      if (cookie && !cookie.multiValue && KNOWN[name].indexOf(cookie.value) >= 0) {
        kept[name] = { value: cookie.value };
      }
    });
  }
  request.cookies = kept;
  return request;
}
