-- Reads a record, or forgets it: see `RedisStore::record` and `RedisStore::forget`.
--
-- KEYS  1 the upstream, 2 the record: as of admit.lua
-- ARGV  1 figures, packed doubles in the order in which they are unpacked below
--       2 look | forget
--       3 with forget: the stamp of what was seen; empty: whatever stands there
-- Reply { state, packed doubles: Redis TIME, the end of the lease or of the result, the end of the
--         record, in us of Redis TIME; -1 for none; stamp, version, fingerprint, token, mac, body }
--       state: absent | in_flight | done | uncertain | expired; foreign: written by no gateway, or
--         corrupt, which the next call takes over as uncertain
--       forgotten            to forget: it is gone
--       in_flight, changed   to forget: it stands as it was

local clock -- in tests; else -1: TIME
  = struct.unpack('<d', ARGV[1])

local up = advance(redis.call('MGET', KEYS[1])[1], clock, 0, 1, -1)
local m = up.m

local fields = try('HMGET', KEYS[2],
  'state', 'nonce', 'version', 'print', 'token', 'mac', 'sticky', 'times', 'body')
local kept, holder, version, print, token, mac, sticky, packed, body =
  fields[1], fields[2], fields[3], fields[4], fields[5], fields[6], fields[7], fields[8], fields[9]
local held, ends_at, body_until
if kept then held, ends_at, body_until = times(packed) end

local function state()
  if not kept then
    return redis.call('EXISTS', KEYS[2]) == 1 and 'foreign' or 'absent'
  elseif not is_whole(held, body_until, kept, holder, version, print, token, mac, sticky) then
    return 'foreign'
  elseif ends_at <= m then
    return 'absent'
  elseif kept == 'in_flight' and runs(held, m) then
    return 'in_flight'
  elseif kept == 'tombstone' then
    return 'expired'
  elseif body_until ~= -1 then
    -- The state is done, or a takeover to seal the body anew never ended: the body is still valid.
    if body_until <= m then return 'expired' end
    return body and 'done' or 'uncertain'
  end
  return 'uncertain'
end

local seen = state()
local stamp = seen .. (holder or '') .. (packed or '')
if ARGV[2] == 'forget' and seen ~= 'absent' then
  if seen == 'in_flight' then return { 'in_flight' } end
  if ARGV[3] ~= '' and ARGV[3] ~= stamp then return { 'changed' } end
  redis.call('DEL', KEYS[2])
  return { 'forgotten' }
end

local function time(at) return at and at >= 0 and up.now + at - m or -1 end
local is_known = seen ~= 'absent' and seen ~= 'foreign'
local until_ = seen == 'in_flight' and time(held) or seen == 'done' and time(body_until) or -1
local figures = struct.pack('<ddd', up.now, until_, is_known and time(ends_at) or -1)
if seen ~= 'done' then body = '' end
return { seen, figures, stamp, version or '', print or '', token or '', mac or '', body }
