/* Which rules of blockers' lists match: `node match.cjs FOLDER < {"requests": [{url, page, types}], "cookies": [name]}`.
 *
 * Reads every .txt below FOLDER. Answers {"lists": [file], "rules": number, "requests": [{url, type, rule}],
 * "cookies": [{name, rule}]}, with what matched and nothing else.
 */
const fs = require("node:fs");
const path = require("node:path");
const { FiltersEngine, Request } = require("@ghostery/adblocker");

const folder = process.argv[2];
const lists = fs.readdirSync(folder, { recursive: true }).filter((file) => file.endsWith(".txt")).sort();
const text = lists.map((file) => fs.readFileSync(path.join(folder, file), "utf8")).join("\n");
const asked = JSON.parse(fs.readFileSync(0, "utf8"));

// A filter keeps its line with `debug`, and its own with no optimisation, which joins several. Without preprocessors
// the rules of every browser are in force.
const engine = FiltersEngine.parse(text, { debug: true, enableOptimizations: false, loadCosmeticFilters: false });

function* blocked({ url, page, types }) {
  for (const type of types) {
    const result = engine.match(Request.fromRawDetails({ url, sourceUrl: page, type }));
    if (result.match) yield { url, type, rule: String(result.filter.rawLine || result.filter) };
    else if (result.rewrite) yield { url, type, rule: `$removeparam, to ${result.rewrite.url}` };
  }
}

/* The engine knows no cookies. Two kinds of rules do: AdGuard's modifier $cookie, of a name or a /regex/, and the scriptlet
 * remove-cookie, of a part of a name. Only rules for every site are of interest.
 * https://adguard.com/kb/general/ad-filtering/create-own-filters/#cookie-modifier
 */
const SCRIPTLET = /^\*?#(?:#\+js\(|%#\/\/scriptlet\()['"]?(?:remove-cookie|cookie-remover)(?:\.js)?(?:['"]?, *['"]?([^,'")]*))?/;

function cookieRules() {
  const rules = [];
  for (const line of text.split(/\r?\n/)) {
    const [, options] = /^\*?\$(.*)/.exec(line) || [, ""];
    const modifier = /(?:^|,)cookie(?:=([^,;]*))?/.exec(options);
    if (modifier && !/domain=|third-party|3p/.test(options)) rules.push([line, namesCookie(modifier[1], true)]);
    const scriptlet = SCRIPTLET.exec(line);
    if (scriptlet) rules.push([line, namesCookie(scriptlet[1], false)]);
  }
  return rules;
}

function namesCookie(value, whole) {
  if (!value) return () => true;
  const regex = /^\/(.*)\/(i?)$/.exec(value);
  if (regex) return (name) => new RegExp(regex[1], regex[2]).test(name);
  return (name) => (whole ? name === value : name.includes(value));
}

const rules = cookieRules();
const answer = {
  lists,
  rules: engine.getFilters().networkFilters.length,
  requests: asked.requests.flatMap((request) => [...blocked(request)]),
  cookies: asked.cookies.flatMap((name) => rules.filter(([, hit]) => hit(name)).map(([rule]) => ({ name, rule }))),
};
process.stdout.write(JSON.stringify(answer));
