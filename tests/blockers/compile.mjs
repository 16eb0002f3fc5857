/* Blockers' lists as rules for Chromium, by uBlock Origin Lite's own compiler: `node compile.mjs LISTS SURROGATES FILE`.
 *
 * Reads every .txt below LISTS and writes the declarativeNetRequest rules to FILE. SURROGATES is the folder of what
 * the lists have served instead of a script or an image. Answers {"lists": [file], "everywhere": [scriptlet]}: the
 * scriptlets that run on every site, with their arguments.
 */
import fs from "node:fs";
import path from "node:path";

import { pslInit } from "@gorhill/ubo-core";
import surrogates from "@gorhill/ubo-core/js/redirect-resources.js";
import { dnrRulesetFromRawLists } from "@gorhill/ubo-core/js/static-dnr-filtering.js";

const [folder, resources, file] = process.argv.slice(2);
const lists = fs.readdirSync(folder, { recursive: true }).filter((name) => name.endsWith(".txt")).sort();

/* What an extension may name in a rule, by each name that lists have for it. */
function paths() {
  const found = [];
  for (const [name, { alias = [] }] of surrogates) {
    if (!fs.existsSync(path.join(resources, name))) continue;
    for (const known of [name, alias].flat()) found.push([known, `/${path.basename(resources)}/${name}`]);
  }
  return found;
}

pslInit();
const compiled = await dnrRulesetFromRawLists(
  lists.map((name) => ({ name, text: fs.readFileSync(path.join(folder, name), "utf8") })),
  { env: ["chromium", "mv3", "native_css_has", "ublock", "ubol", "user_stylesheet"], extensionPaths: paths() },
);
// What starts with an underscore are the compiler's own notes; a rule with an error is none that Chromium could know.
const rules = compiled.network.ruleset.filter((rule) => !rule._error);
fs.writeFileSync(file, JSON.stringify(rules, (key, value) => (key.startsWith("_") ? undefined : value)));

const scriptlets = [...(compiled.scriptlet ?? new Map()).values()];
const everywhere = scriptlets.filter(({ matches }) => !matches || matches.includes("*")).map(({ args }) => args);
process.stdout.write(JSON.stringify({ lists, everywhere }));
