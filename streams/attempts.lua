-- The log of attempts: below common.lua.

local hashes
atBegin(function() hashes = {} end)

-- Keeps the record of an attempt; returns its id. What src/streams/attempts.rs filters by is added to `listed`.
local function keepAttempt(listed, isSuccess, status, type, text, ...)
  local id = call('XADD', P .. ':attempts', '*', 'r', text, ...)
  local ms, seq = id:match('(%d+)-(%d+)')
  hashes[type] = hashes[type] or tonumber(redis.sha1hex(type):sub(1, 8), 16)
  listed[#listed + 1] = struct.pack('>I6I4BBI4', tonumber(ms), tonumber(seq), isSuccess and 1 or 0, math.floor(status / 100), hashes[type])
  return id
end

-- Adds attempts to the list of their subscription.
local function listAttempts(sub, listed)
  if #listed > 0 then call('RPUSH', key('att', sub), unpack(listed)) end
end
