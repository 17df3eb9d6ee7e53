#!lua flags=allow-oom
-- Throws dead letters away, for good.
-- ARGV 2 sub  3 ids of dead letters (MessagePack), or "" for the oldest up to  4 an id
-- Returns how many there were (200 at most a call without ids)
local sub, dead, discarded = ARGV[2], key('dead', ARGV[2]), 0

local function discard(letter)
  local f = fields(letter)
  note(f.e, sub, f.c, 'c', letter[1], f.n, f.ls)
  unref({ f.e })
  call('XDEL', dead, letter[1])
  discarded = discarded + 1
end

if ARGV[3] == '' then
  for _, letter in ipairs(call('XRANGE', dead, '-', ARGV[4], 'COUNT', 200)) do discard(letter) end
else
  for _, id in ipairs(cmsgpack.unpack(ARGV[3])) do
    local letter = call('XRANGE', dead, id, id)[1]
    if letter then discard(letter) end
  end
end
tidyDead(sub)
plan(sub)
return discarded
