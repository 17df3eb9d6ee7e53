#!lua flags=allow-oom
-- Makes dead letters of deliveries that nobody holds, or held too long ago: a backlog that is skipped, or too old.
-- ARGV 2 sub  3 last id  4 reason  5 error  6 entries looked at, at most  7 dead letter limit  8 after this id
-- Returns {entries dropped, where to go on or ""}
local sub, dlv, ids = ARGV[2], key('dlv', ARGV[2]), {}
if not load(sub) then return { 0, '' } end
local page = call('XRANGE', dlv, '(' .. ARGV[8], ARGV[3], 'COUNT', ARGV[6])
for _, entry in ipairs(page) do
  local id, f = entry[1], fields(entry)
  if tonumber(call('ZSCORE', key('inf', sub), id) or 0) <= now then
    local pending = pendingEntry(sub, id)
    bury(sub, { ev = f.e, copy = f.c or 0, attempts = (f.a or 0) + (pending and pending[4] or 0), why = ARGV[4],
      status = 0, error = ARGV[5], entry = id }, tonumber(ARGV[7]))
    ids[#ids + 1] = id
    forget(sub, id)
  end
end
if #ids > 0 then
  call('XACK', dlv, 'senders', unpack(ids))
  call('XDEL', dlv, unpack(ids))
end
plan(sub)
return { #ids, #page == tonumber(ARGV[6]) and page[#page][1] or '' }
