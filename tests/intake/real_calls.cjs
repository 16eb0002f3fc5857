// The events that the real library makes of calls: one JSON line in, [method, arguments, page], one line out.
// "<function>" as the last argument stands for a callback.
const resolver = require('@segment/analytics-next/dist/cjs/core/arguments-resolver')
const { EventFactory } = require('@segment/analytics-next/dist/cjs/core/events')
const { createPageContext } = require('@segment/analytics-page-tools')

function event([method, args, page]) {
  if (args[args.length - 1] === '<function>') args[args.length - 1] = () => {}
  let anonymousId = 'nobody'
  const user = { id: () => null, anonymousId: (id) => (anonymousId = id ?? anonymousId) }
  const resolve = {
    track: resolver.resolveArguments,
    page: resolver.resolvePageArguments,
    screen: resolver.resolvePageArguments,
    identify: resolver.resolveUserArguments(user),
    group: resolver.resolveUserArguments(user),
    alias: resolver.resolveAliasArguments,
  }[method]
  const length = method === 'page' || method === 'screen' ? 4 : 3
  const resolved = resolve(...args).slice(0, length)
  return new EventFactory(user)[method](...resolved, {}, createPageContext(page))
}

require('readline')
  .createInterface({ input: process.stdin })
  .on('line', (line) => {
    let made = null
    try {
      made = event(JSON.parse(line))
    } catch (_) {}
    console.log(JSON.stringify(made))
  })
