-- Giving deliveries up, and telling their tenant: below references.lua.

-- Drops the oldest dead letter of a subscription that keeps more than it may, and counts it.
local function dropOldest(sub)
  local dead = key('dead', sub)
  local oldest = call('XRANGE', dead, '-', '+', 'COUNT', 1)[1]
  local f = fields(oldest)
  note(f.e, sub, f.c, 'c', oldest[1], f.n, f.ls)
  call('XDEL', dead, oldest[1])
  unref({ f.e })
  call('HINCRBY', P .. ':cnt', 'dropped', 1)
end

-- The type and nonce of an event that is still owed: in the log, or beside it. A type of "" where it is nowhere.
local function typeOf(ev)
  local event = call('XRANGE', P .. ':events', ev, ev)[1]
  if event then
    local f = fields(event)
    return f.t or '', f.i
  end
  local kept = call('HMGET', key('pay', ev), 't', 'i')
  return kept[1] or '', kept[2]
end

-- Numbers of so many bits each, regrouped into numbers of others; what is left over is filled up with zeros.
local function regroup(numbers, from, to)
  local regrouped, held, bits = {}, 0, 0
  for _, number in ipairs(numbers) do
    held, bits = held * 2 ^ from + number, bits + from
    while bits >= to do
      bits = bits - to
      regrouped[#regrouped + 1] = math.floor(held / 2 ^ bits)
      held = held % 2 ^ bits
    end
  end
  if bits > 0 then regrouped[#regrouped + 1] = held * 2 ^ (to - bits) end
  return regrouped
end

-- Public ids, as src/domain/id.rs writes them: base32hex of bytes.
local DIGITS = '0123456789abcdefghijklmnopqrstuv'
local function publicId(prefix, bytes)
  local text = regroup({ bytes:byte(1, -1) }, 8, 5)
  for i, digit in ipairs(text) do text[i] = DIGITS:sub(digit + 1, digit + 1) end
  return prefix .. table.concat(text)
end

-- The 16 bytes of a subscription's id; the seventh and eighth are the shard.
local function bytesOf(sub)
  local digits = { sub:byte(4, -1) }
  for i, c in ipairs(digits) do digits[i] = c - (c < 97 and 48 or 87) end
  return string.char(unpack(regroup(digits, 5, 8), 1, 16))
end

local function placeOf(ev)
  local ms, seq = ev:match('(%d+)-(%d+)')
  return struct.pack('>I6I4', tonumber(ms), tonumber(seq))
end

local function eventId(ev, sub, nonce)
  return publicId('evt_', placeOf(ev) .. bytesOf(sub):sub(7, 8) .. struct.pack('>I4', tonumber(nonce)))
end

local function deliveryId(ev, sub, copy)
  local bytes = bytesOf(sub)
  return publicId('dlv_', placeOf(ev) .. bytes:sub(7, 8) .. bytes .. struct.pack('>I2', tonumber(copy)))
end

-- Whether a type is the engine's own. So may be one that is not known.
local function isOwn(type) return type == '' or type:sub(1, 10) == 'posthaste.' end

-- Appends an event of the engine's own to the log, for those of the tenant who named its type. Never because of a delivery
-- of such an event: what tells of failures would fail and tell without end.
local told
atBegin(function() told = 0 end)
local function tell(tenant, type, data)
  local body = cjson.encode(data)
  told = told + 1
  local nonce = redis.sha1hex(table.concat({ clock[1], clock[2], told, type, body }, ' ')):sub(1, 8)
  call('XADD', P .. ':events', '*', 'i', tonumber(nonce, 16), 'v', call('HGET', P .. ':cfgv', tenant) or '0-0', 't', type,
    'tn', tenant, 'ts', now, 'b', body)
end

-- Tells of a dead letter, if one of its tenant's subscriptions wants to know.
local function tellOfDead(tenant, sub, letter, type, nonce)
  if isOwn(type) or not nonce or call('EXISTS', key('own', tenant)) == 0 then return end
  tell(tenant, 'posthaste.delivery.dead_lettered', {
    delivery_id = deliveryId(letter.ev, sub, letter.copy), webhook_id = sub, event_id = eventId(letter.ev, sub, nonce),
    event_type = type, reason = letter.why, attempts = letter.attempts,
    last_status = letter.status > 0 and letter.status or cjson.null, last_error = letter.error ~= '' and letter.error or cjson.null,
  })
end

-- Keeps a delivery as a dead letter; its reference to the event moves along.
-- letter: ev copy type and nonce (or nil: its event is looked at) attempts why status error entry (its id on the delivery
--         stream) attempt (of the log, or nil)
local function bury(sub, letter, limit)
  local dead, tenant = key('dead', sub), call('HGET', key('rt', sub), 'tn') or ''
  local type, nonce = letter.type, letter.nonce
  if not type then type, nonce = typeOf(letter.ev) end
  local id = call('XADD', dead, '*', 'e', letter.ev, 'c', letter.copy, 't', type, 'n', letter.attempts, 'why', letter.why,
    'ls', letter.status, 'le', letter.error, 'at', letter.entry:match('^%d+'))
  call('HINCRBY', key('rt', sub), 'ko', 1)
  tally(sub, { dead = 1 })
  call('ZADD', P .. ':deadidx', 'NX', now, sub)
  call('ZADD', key('tdead', tenant), now, sub)
  tellOfDead(tenant, sub, letter, type, nonce)
  note(letter.ev, sub, letter.copy, 'd', id, letter.attempts, letter.status, letter.attempt)
  if call('XLEN', dead) > limit then dropOldest(sub) end
end
