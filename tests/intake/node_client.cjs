// Six calls by Segment's library for Node. Arguments: write key, host, path. Prints the errors as JSON.
const { Analytics } = require('@segment/analytics-node')

const [writeKey, host, path] = process.argv.slice(2)
const analytics = new Analytics({ writeKey, host, path, flushAt: 4, maxRetries: 0 })
const errors = []
analytics.on('error', (error) => errors.push(String(error.reason?.message ?? error.reason ?? error.code)))

const userId = 'ada'
analytics.identify({ userId, traits: { plan: 'gold' } })
analytics.track({ userId, event: 'Bought', properties: { price: 9.5, name: 'Ü </script>' } })
analytics.page({ anonymousId: 'visitor', name: 'Shop', context: { ip: '198.51.100.7' } })
analytics.screen({ userId, name: 'Start' })
analytics.group({ userId, groupId: 'staff', traits: { size: 5 } })
analytics.alias({ userId, previousId: 'visitor' })
analytics.closeAndFlush({ timeout: 10000 }).then(() => console.log(JSON.stringify(errors)))
