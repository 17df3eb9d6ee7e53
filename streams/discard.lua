#!lua flags=allow-oom
-- Throws dead letters away, for good.
-- ARGV 2 sub  3 ids of dead letters (MessagePack), or "" for the oldest up to  4 an id
-- Returns how many there were (200 at most a call without ids)
local sub, dead = ARGV[2], key('dead', ARGV[2])
local letters = {}
if ARGV[3] == '' then
  letters = call('XRANGE', dead, '-', ARGV[4], 'COUNT', 200)
else
  for _, id in ipairs(cmsgpack.unpack(ARGV[3])) do letters[#letters + 1] = call('XRANGE', dead, id, id)[1] end
end
for _, letter in ipairs(letters) do
  local f = fields(letter)
  note(f.e, sub, f.c, 'c', letter[1], f.n, f.ls)
  unref(f.e)
  call('XDEL', dead, letter[1])
end
tidyDead(sub)
plan(sub)
return #letters
