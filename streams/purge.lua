#!lua flags=allow-oom
-- Clears what a deleted subscription leaves, in pages; after the last one its keys. Its attempts and its tombstone stay
-- until they have aged.
-- ARGV 2 sub  3 entries, at most
-- Returns 1 when nothing is left, else 0
local sub, limit = ARGV[2], tonumber(ARGV[3])
local rt, dlv, dead = key('rt', sub), key('dlv', sub), key('dead', sub)
local r = load(sub)
if not r then return 1 end
if r.st ~= 'd' then return 0 end

local function page(stream, left)
  local ids = {}
  for _, entry in ipairs(call('XRANGE', stream, '-', '+', 'COUNT', left)) do
    local f = fields(entry)
    note(f.e, sub, f.c or 0, 'c', entry[1], f.n or f.a or 0, f.ls or 0)
    unref({ f.e })
    ids[#ids + 1] = entry[1]
  end
  if #ids == 0 then return 0 end
  if stream == dlv then
    call('XACK', dlv, 'senders', unpack(ids))
    forget(sub, unpack(ids))
  end
  call('XDEL', stream, unpack(ids))
  return #ids
end

local done = page(dlv, limit)
if done < limit then done = done + page(dead, limit - done) end
plan(sub, r)
if done == limit then return 0 end
for _, name in ipairs({ 'dlv', 'dead', 'inf', 'rty', 'tok' }) do call('UNLINK', key(name, sub)) end
call('ZREM', P .. ':deadidx', sub)
call('ZREM', P .. ':old', sub)
call('ZREM', key('tdead', call('HGET', rt, 'tn') or ''), sub)
call('UNLINK', rt)
return 1
