// Plays Express for verify.ts: argument 1 is that file without its type annotations, standard input a JSON list of
// {secret, headers, body}. The last line printed is the list of statuses.
import fs from 'node:fs'
import { pathToFileURL } from 'node:url'

let handler
globalThis.app = { post: (_path, h) => { handler = h } }
await import(pathToFileURL(process.argv[2]))

const statuses = JSON.parse(fs.readFileSync(0, 'utf8')).map(({ secret, headers, body }) => {
  globalThis.WEBHOOK_SECRET = secret
  let status
  handler({ headers, body: JSON.parse(body) }, { status: (code) => ({ send: () => { status = code } }) })
  return status
})
console.log(JSON.stringify(statuses))
