#!lua
-- Sends dead letters once more: each goes to the end of its delivery stream, with its id and a new set of retries.
-- Refused when memory is short, before any write.
-- ARGV 2 sub  3 backlog limit  4 ids of dead letters (MessagePack)
-- Returns {redriven, 1 if the backlog is full, 1 if the subscription is gone}
local sub, maxBacklog = ARGV[2], tonumber(ARGV[3])
local dlv, dead = key('dlv', sub), key('dead', sub)
local r = load(sub)
if not r or r.st == 'd' then return { 0, 0, 1 } end
local redriven, full = 0, 0
for _, id in ipairs(cmsgpack.unpack(ARGV[4])) do
  if call('XLEN', dlv) >= maxBacklog then full = 1 break end
  local letter = call('XRANGE', dead, id, id)[1]
  if letter then
    local f = fields(letter)
    local entry = call('XADD', dlv, '*', 'e', f.e, 'c', f.c, 'a', f.n)
    note(f.e, sub, f.c, 'p', entry, f.n, f.ls)
    call('XDEL', dead, id)
    redriven = redriven + 1
  end
end
if redriven > 0 then
  clearFaults(sub, r)
  call('HINCRBY', key('rt', sub), 'ko', -redriven)
end
tidyDead(sub)
plan(sub, r)
ring()
return { redriven, full, 0 }
