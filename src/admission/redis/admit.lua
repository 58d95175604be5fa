-- Decides a call, a queued call's next ask or a further attempt; renews a lease; reads the levels:
-- see `Store::admit` and `Store::quota`. The reasons: docs/design/admission.md, "What admit
-- decides".
--
-- KEYS  1 the upstream: its clock and budget, packed (common.lua)
--       2 the tenant on it: levels and shares, packed (common.lua)
--       3 its calls in flight: sorted set, nonce -> end of lease; negative: not counted, since
--         shadow enforcement let the call through
--       4 the queue: sorted set, member (common.lua) -> order of arrival
--       5 the same members -> when each is dropped unless it asks again
--       6 the last starts: hash, tenant -> tag, while any call waits
--       7 the record, only if the call has a client token: hash
--         {state: in_flight | done | tombstone | uncertain, nonce, version, print, token, mac,
--          sticky: 0 | 1, times (packed, common.lua), body}
-- ARGV  1 ask: call | attempt | renew | look | quota
--       2 figures, packed doubles in the order in which they are unpacked below; times in us
--       3 nonce
--       4 tenant
--       with a record: 5 version, 6 fingerprint, 7 upstream token, 8 mac,
--         9 what is distrusted, or empty
-- Reply one string, since Redis and its clients spend more on every further part. Its figures are
--       doubles, and a NUL ends each of its texts. It begins with
--         word
--         level, factor, in flight, wait that was let through in s
--         limit that was let through: none | rate | in_flight
--       and goes on by the word:
--         levels tenant, share, budget, n          the answer to a quota; n: how many wait
--         granted m, sticky 0 | 1, strange 0 | 1, token
--                                                  strange: no gateway wrote the record that stood
--                                                  there; the token is empty without a record
--         replay body                              without a NUL
--         mismatch mac, fingerprint, token, version
--         busy us                                  what is left of the lease
--         tombstone
--         lost                                     the claim is not this call's; to a look: no
--                                                  answer
--         refused s, rate | in_flight | budget
--         ask_again s
-- An answer that is not `granted` claims nothing. `ask_again` holds a place in the queue.

local MAX_QUEUE = 1024
-- How much later than its hint a queued call may ask again.
local GRACE = 250e3

-- Whether the level is enough for every refused caller, or they do not come back: hints count until
-- then. Half a burst is the allowance for callers that come late.
local function has_spare(level, size) return level >= 1 + max(1, size / 2) - TOLERANCE end

-- Whether they are a version, fingerprint, token and mac as any version of this program writes
-- them.
local function is_written(version, ...)
  for _, text in ipairs({ ... }) do
    if not text:find('^[%w_-]+$') then return false end
  end
  return version:find('^%d%d?%d?$') ~= nil and tonumber(version) <= 255
end

local ask, nonce, tenant_name = ARGV[1], ARGV[3], ARGV[4]
local clock, -- in tests; else -1: TIME
  rate, burst,
  reserved, -- tokens that are kept for the committed
  throttled, -- m of the last attempt, if Connect throttled it; else -1
  tenant_rate, tenant_burst, committed,
  share_burst, -- the most that the committed share saves up
  most, -- calls in flight
  shadow, -- 1: the tenant's own limits are decided, and let through
  lease_us, longest_us, retention,
  uncertain, -- 1: an earlier attempt may have been executed
  typical -- what a call takes
  = struct.unpack('<dddddddddddddddd', ARGV[2])
local is_attempt = ask == 'attempt'

-- MGET returns nil for a key of another type.
local kept = redis.call('MGET', KEYS[1], KEYS[2])
local up = advance(kept[1], clock, rate, burst, throttled)
local m, phi = up.m, up.phi

local tenant, dirty = read_tenant(kept[2]), false
local is_kept = tenant ~= nil
local refilled = tenant_burst -- as if there were no burst to bound it
if tenant then
  refilled = tenant.level + tenant_rate * max(0, m - tenant.at) / 1e6
  tenant.level = max(-1, min(tenant_burst, refilled))
  tenant.share = min(share_burst, tenant.share + committed * max(0, phi - tenant.share_phi))
  -- A stamp ahead of the clock was written before a failover. It is set to now. Otherwise
  -- nothing would refill until the clock reaches it.
  dirty = tenant.at > m or tenant.share_phi > phi
else
  tenant = { level = tenant_burst, share = share_burst, promised = 0, flights_promised = 0,
    queued = 0 }
end
tenant.at, tenant.share_phi = m, phi

local after_m, last_lease = '(' .. int(m), m + MAX_LEASE
local flying = try('ZCOUNT', KEYS[3], after_m, int(last_lease))
local flights_foreign = type(flying) == 'table'
if flights_foreign then flying = 0 end

-- The bucket's own refill. The factor, which slows the share's refill, is back at 1 after 16 s.
local tenant_life = max(MINUTE, refill(tenant_burst, tenant_rate))
if committed > 0 then tenant_life = max(tenant_life, refill(share_burst, committed) + 16e6) end
local life = max(tenant_life, refill(burst, rate) + 16e6)
local shadowed, shadowed_wait = 'none', 0

-- The values if no call waits.
local queue = { waiting = 0, paid = 0, tag = 0, ahead = 0, gone = {} }

-- An exact wait, spread: callers that are refused together come back one after another. A bucket
-- for a single call loses refill while no caller comes. There, a caller that comes a little too
-- soon keeps its turn.
local function spread(exact, promised, each, holds)
  if holds < 2 and exact < each / 10 then return min(MAX_HINT, exact), promised end
  local hint = min(MAX_HINT, max(exact, promised - m + each))
  return hint, m + hint
end

-- Writes what has changed, and returns the reply. `more`: what the word has of its own, packed.
local function close(word, more)
  store(KEYS[1], up, life)
  if dirty then
    redis.call('SET', KEYS[2], pack_tenant(tenant), 'PX', px(tenant_life))
  elseif is_kept and tenant_life > MINUTE then
    -- A lower rate may apply since: the key must outlive the new refill.
    redis.call('PEXPIRE', KEYS[2], px(tenant_life))
  end
  if queue.is_foreign then redis.call('DEL', KEYS[4], KEYS[5], KEYS[6]) end
  if #queue.gone > 0 then
    redis.call('ZREM', KEYS[4], unpack(queue.gone))
    redis.call('ZREM', KEYS[5], unpack(queue.gone))
  end
  return struct.pack('<sdddds', word, tenant.level, up.factor, flying, shadowed_wait, shadowed)
    .. (more or '')
end

local function refuse(limit, wait)
  return close('refused', struct.pack('<ds', wait / 1e6, limit))
end

local function grant(sticky, token, strange)
  return close('granted', struct.pack('<ddds', m, tonumber(sticky), strange, token))
end

local function leave_queue()
  redis.call('ZREM', KEYS[4], member(nonce, queue.kind, tenant_name))
  redis.call('ZREM', KEYS[5], member(nonce, queue.kind, tenant_name))
end

if ask == 'quota' then
  local waiting = try('ZCOUNT', KEYS[5], after_m, '+inf')
  if type(waiting) == 'table' then waiting = 0 end
  return close('levels', struct.pack('<dddd', tenant.level, tenant.share, up.level, waiting))
end

-- 1. The record.

local lease = m + lease_us
local token, sticky, standing = '', '0', 'absent'
local ends_at, wipe = 0, false
local body_until = -1

if KEYS[7] then
  local version, fingerprint, own_token, own_mac = ARGV[5], ARGV[6], ARGV[7], ARGV[8]
  local distrusted = ARGV[9]
  local fields = try('HMGET', KEYS[7],
    'state', 'nonce', 'version', 'print', 'token', 'mac', 'sticky', 'times', 'body')
  local state, holder, kept_version, kept_print, kept_token, kept_mac, kept_sticky, packed, body
    = fields[1], fields[2], fields[3], fields[4], fields[5], fields[6], fields[7], fields[8], fields[9]
  local held
  if state then held, ends_at, body_until = times(packed) end
  token = own_token
  -- What the record is about has the same form in every layout.
  local is_named = kept_version and kept_print and kept_token and kept_mac
  local is_sound = is_whole(held, body_until, state, holder, kept_version, kept_print, kept_token,
    kept_mac, kept_sticky)
  if fields.err then
    standing, wipe = 'foreign', true
  elseif not is_named then
    -- Nothing, or what no gateway wrote: only a claim needs to know which.
    standing = 'absent'
  elseif is_sound and ends_at <= m then
    wipe = true
  elseif kept_version ~= version or kept_print ~= fingerprint then
    if is_written(kept_version, kept_print, kept_token, kept_mac) and distrusted ~= kept_mac then
      return close('mismatch',
        struct.pack('<ssss', kept_mac, kept_print, kept_token, kept_version))
    end
    standing, wipe = 'foreign', true
  elseif kept_token ~= token or kept_mac ~= own_mac then
    -- The same content has the same token and mac, so another program wrote this record.
    standing, wipe = 'foreign', true
  elseif not is_sound then
    -- A place in flight has the same form in every layout: it tells whether the claim still runs.
    local is_unknown = state == 'in_flight' and holder and packed and not LAYOUTS[packed:byte()]
    local place = is_unknown and math.abs(tonumber(try('ZSCORE', KEYS[3], holder)) or 0)
    if place and runs(place, m) then return close('busy', struct.pack('<d', place - m)) end
    standing, wipe = 'foreign', true
  else
    sticky = kept_sticky
    if state == 'in_flight' and holder == nonce then
      standing, lease = 'ours', max(lease, held <= last_lease and held or 0)
    elseif state == 'in_flight' and runs(held, m) then
      return close('busy', struct.pack('<d', held - m))
    elseif state == 'tombstone' then
      return close('tombstone')
    elseif body_until ~= -1 then
      -- The state is done, or a takeover to seal the body anew never ended: the body is still
      -- valid.
      if body_until <= m then
        local reply = close('tombstone')
        redis.call('HSET', KEYS[7], 'state', 'tombstone',
          'times', pack('times', held, ends_at, -1))
        redis.call('HDEL', KEYS[7], 'body')
        return reply
      end
      if body and body ~= distrusted then return close('replay', body) end
      standing = 'uncertain'
    else
      standing = 'uncertain'
    end
  end
  if wipe or standing == 'absent' then ends_at, body_until = 0, -1 end
  if standing == 'foreign' or standing == 'uncertain' then sticky = '1' end
  if (is_attempt or ask == 'renew') and standing ~= 'ours' then return close('lost') end
  if is_attempt and uncertain == 1 then sticky = '1' end
end

if ask == 'look' then return close('lost') end

-- A call without a record is known only by its lease.
local score = not flights_foreign and tonumber(redis.call('ZSCORE', KEYS[3], nonce))
local running = score and runs(math.abs(score), m) and math.abs(score)
local is_counted = score and score > 0

if ask == 'renew' then
  if not running and not KEYS[7] then return close('lost') end
  life = max(life, lease_us)
  local reply = grant(sticky, token, 0)
  if running then
    redis.call('ZADD', KEYS[3], 'XX', is_counted and max(lease, running) or -max(lease, running),
      nonce)
    redis.call('PEXPIRE', KEYS[3], MAX_LEASE / 1e3)
  end
  if KEYS[7] then
    ends_at = max(ends_at, lease)
    redis.call('HSET', KEYS[7], 'times', pack('times', lease, ends_at, body_until))
    redis.call('PEXPIRE', KEYS[7], px(max(MINUTE, ends_at - m)))
  end
  return reply
end

if try('ZCARD', KEYS[4]) ~= 0 then
  queue = read_queue(nonce, tenant_name, is_attempt, m, up.served)
end
if queue.waiting == 0 then up.served = 0 end

-- Queued calls that never asked again get back their charge.
if queue.paid < tenant.queued then
  tenant.level = min(tenant_burst, tenant.level + tenant.queued - queue.paid)
  tenant.queued, dirty = queue.paid, true
end
-- The place of a queued call ends with its turn. It is no grant.
local is_queued = queue.kind ~= nil
local has_paid = queue.kind == 'call' or queue.kind == 'committed'

local mended = not is_attempt and standing == 'ours'
if not KEYS[7] and running and not is_queued then
  lease, mended = max(lease, running), not is_attempt
end

-- 2. The tenant's ceiling; 3. its calls in flight. A further attempt has passed both, and so has a
-- queued call. A call that shadow enforcement lets through does not change the tenant's figures,
-- like a refused one.

local is_free = is_attempt
if is_queued and not is_attempt and not has_paid then shadowed, is_free = queue.kind, true end

if not is_attempt and not mended and not is_queued then
  local others = flying
  if running and is_counted then others = flying - 1 end
  if tenant.level < 1 - TOLERANCE then
    local each = 1e6 / tenant_rate
    local wait, promised = spread((1 - tenant.level) * each, tenant.promised, each,
      tenant_burst)
    shadowed, shadowed_wait, dirty = 'rate', wait, dirty or promised ~= tenant.promised
    tenant.promised = promised
  elseif others >= most then
    local each = typical / most
    local wait, promised = spread(typical, tenant.flights_promised, each, 2)
    shadowed, shadowed_wait, dirty = 'in_flight', wait, dirty or promised ~= tenant.flights_promised
    tenant.flights_promised = promised
  else
    if tenant.promised > 0 and has_spare(refilled, tenant_burst) then
      tenant.promised, dirty = 0, true
    end
    if tenant.flights_promised > 0 and others + 1 < most then
      tenant.flights_promised, dirty = 0, true
    end
  end
  if shadowed ~= 'none' then
    local limit, wait = shadowed, shadowed_wait
    if shadow == 0 then
      shadowed, shadowed_wait = 'none', 0
      return refuse(limit, wait)
    end
    shadowed_wait, is_free = wait / 1e6, true
  end
end

-- 4. The upstream's budget: the call is refused, waits, or starts.

local is_committed = tenant.share >= 1 - TOLERANCE
local needed = is_committed and 1 or reserved + 1 + queue.ahead
local each = 1e6 / (up.factor * rate)
-- The time until the call may start, and the part of it beyond the time that it can wait. Each call
-- ahead may start up to 1 µs late, as it is told whole microseconds.
local wait, excess = 0, 0
if not mended and up.level < needed - TOLERANCE then
  wait = (needed - up.level) * each
  if wait > longest_us + 1e-3 then
    excess = wait - longest_us + queue.ahead
  elseif not is_queued and queue.waiting >= MAX_QUEUE then
    excess = wait
  end
end

if excess > 0 then
  local hint
  hint, up.promised = spread(excess, up.promised, each, burst - reserved)
  if has_paid then
    tenant.level = min(tenant_burst, tenant.level + 1)
    tenant.queued, dirty = tenant.queued - 1, true
  end
  local gives_place = not is_free and running
  if gives_place and is_counted then flying = flying - 1 end
  local reply = refuse('budget', hint)
  if is_queued then leave_queue() end
  if gives_place then redis.call('ZREM', KEYS[3], nonce) end
  return reply
end

-- The call holds its places in flight and in the queue until its next ask.
if wait > 0 then
  local dropped = floor(m + wait + GRACE)
  local kind = queue.kind or (is_attempt and 'attempt') or (shadowed ~= 'none' and shadowed)
    or (is_committed and 'committed') or 'call'
  if not is_queued then
    up.arrivals = up.arrivals + 1
    if not is_free then
      tenant.level, tenant.queued, dirty = tenant.level - 1, tenant.queued + 1, true
    end
  end
  if not is_free and not (running and is_counted) then flying = flying + 1 end
  life, tenant_life = max(life, wait + MINUTE), max(tenant_life, wait + MINUTE)
  local reply = close('ask_again', struct.pack('<d', wait / 1e6))
  local name = member(nonce, kind, tenant_name)
  -- The last starts of an earlier queue no longer count.
  if queue.waiting == 0 then redis.call('DEL', KEYS[6]) end
  if not is_queued then redis.call('ZADD', KEYS[4], up.arrivals, name) end
  redis.call('ZADD', KEYS[5], dropped, name)
  -- The keys must last as long as any call's wait, and another call may wait for longer than this
  -- one.
  for i = 4, 6 do redis.call('PEXPIRE', KEYS[i], (MAX_LEASE + MINUTE) / 1e3) end
  if not is_free then
    if flights_foreign then redis.call('DEL', KEYS[3]) end
    redis.call('ZADD', KEYS[3], dropped, nonce)
    redis.call('PEXPIRE', KEYS[3], MAX_LEASE / 1e3)
  end
  return reply
end

local last_start
if not mended then
  local others = queue.waiting - (is_queued and 1 or 0)
  if others == 0 and has_spare(up.level - reserved, burst - reserved) then up.promised = 0 end
  up.level = up.level - 1
  if is_committed then
    tenant.share, dirty = tenant.share - 1, true
  elseif others > 0 then
    last_start, up.served = queue.tag, max(up.served, queue.tag)
  end
  if has_paid then
    tenant.queued, dirty = tenant.queued - 1, true
  elseif not is_free then
    tenant.level, dirty = tenant.level - 1, true
  end
end

-- Granted. The record lives for its retention from the first claim, and as long as its lease.

life = max(life, lease_us)
if KEYS[7] then
  if ends_at == 0 then ends_at = m + retention end
  ends_at = max(ends_at, lease)
  life = max(life, ends_at - m)
end
if KEYS[7] and standing == 'absent' and not wipe and redis.call('EXISTS', KEYS[7]) == 1 then
  standing, wipe, sticky = 'foreign', true, '1'
end
if is_attempt or (mended and running) then is_free = running and not is_counted end
-- With the call's own place.
flying = flying + (is_free and 0 or 1) - (running and is_counted and 1 or 0)
local reply = grant(sticky, token, standing == 'foreign' and 1 or 0)
if is_queued and not mended then leave_queue() end
if last_start then redis.call('HSET', KEYS[6], tenant_name, int(last_start)) end
if flights_foreign then redis.call('DEL', KEYS[3]) end
redis.call('ZREMRANGEBYSCORE', KEYS[3], -m, m)
redis.call('ZADD', KEYS[3], is_free and -lease or lease, nonce)
redis.call('PEXPIRE', KEYS[3], MAX_LEASE / 1e3)
if KEYS[7] then
  if wipe then redis.call('DEL', KEYS[7]) end
  redis.call('HSET', KEYS[7], 'state', 'in_flight', 'nonce', nonce, 'version', ARGV[5],
    'print', ARGV[6], 'token', token, 'mac', ARGV[8], 'sticky', sticky,
    'times', pack('times', lease, ends_at, body_until))
  redis.call('PEXPIRE', KEYS[7], px(max(MINUTE, ends_at - m)))
end
return reply
