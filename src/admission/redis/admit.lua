-- Decides a call, a waiting call's next ask, a further attempt, or reads the levels: see `Store::admit` and `quota`.
--
-- KEYS  1 the upstream: its budget, packed (see common.lua)
--       2 the tenant on it: layout, level, at, share, share_phi, packed
--       3 its calls in flight: sorted set, nonce -> end of lease
--       4 the record, only where the call has a client token: hash
--         {state: f in flight | d done | t tombstone | u uncertain, nonce, version, print, token, mac, sticky,
--          times (packed, see common.lua), body}
-- ARGV  1 what: q quota | p the record only | f first | a again | t attempt | T attempt, again
--       2 packed doubles, all times in us: the clock in tests (else -1: TIME), R, B, tokens reserved,
--         the last attempt's m where Connect throttled it (else -1), tenant's rate, burst, committed rate, burst of
--         that, calls in flight, shadow 1|0, lease, longest wait, retention, uncertain 1|0
--       3 nonce
--       with a record: 4 version, 5 fingerprint, 6 upstream token, 7 mac, 8 what is distrusted, or empty
-- Reply { decision, packed doubles: level, factor, wait that was let through in s; in flight,
--         limit that was let through: 0 | 1 rate | 2 in flight, … }
--       q                                         levels only
--       g m, sticky 1|0, token                    granted (token empty without a record)
--       r body, mac                               replay
--       m mac, fingerprint, token, version        mismatch
--       b us                                      busy: what is left of the lease
--       t                                         tombstone
--       l                                         the attempt's claim is lost; p: the record has no answer
--       x limit (1 rate, 2 in flight, 3 budget), s (packed)  refused, and its wait
--       w s (packed)                              ask again
-- Whatever is not granted has charged, claimed and leased nothing; the clock is kept always.

local what, nonce = ARGV[1], ARGV[3]
local clock, rate, burst, reserved, throttled, tenant_rate, tenant_burst, committed, share_burst, most, shadow,
  lease_us, longest_us, retention, uncertain = unpack('<ddddddddddddddd', ARGV[2])
local attempt = what == 't' or what == 'T'
local asks_first = what == 'f' or what == 't'

-- MGET takes what is no string for absent.
local kept = redis.call('MGET', KEYS[1], KEYS[2])
local up = advance(kept[1], clock, rate, burst, throttled)
local m, phi = up.m, up.phi

local level, share, tenant_dirty = tenant_burst, share_burst, false
local l, at, s, share_phi = tenant(kept[2])
if l then
  level = max(-1, min(tenant_burst, l + tenant_rate * max(0, m - at) / 1e6))
  share = min(share_burst, s + committed * max(0, phi - share_phi))
  -- Stamps ahead of the clock come from before a loss: taken as of now, or nothing would refill until it catches up.
  tenant_dirty = at > m or share_phi > phi
end

local after_m, last_lease = '(' .. int(m), m + MAX_LEASE
local flying = redis.pcall('ZCOUNT', KEYS[3], after_m, last_lease)
local flights_foreign = type(flying) == 'table'
if flights_foreign then flying = 0 end

-- The buckets' own refills; f, which slows the share's, is back at 1 after 16 s.
local tenant_life = max(MINUTE, refill(tenant_burst, tenant_rate))
if committed > 0 then tenant_life = max(tenant_life, refill(share_burst, committed) + 16e6) end
local life = max(tenant_life, refill(burst, rate) + 16e6)
local shadowed, shadowed_wait = 0, 0

-- What this program writes as a record's version, fingerprint, token and mac, in whatever version of its own.
local function is_written(version, ...)
  for _, text in ipairs({ ... }) do
    if not text:find('^[%w_-]+$') then return false end
  end
  return version:find('^%d%d?%d?$') ~= nil and tonumber(version) <= 255
end

local function close(decision, ...)
  store(KEYS[1], up, life)
  if tenant_dirty then
    redis.call('SET', KEYS[2], pack(TENANT, LAYOUT, level, m, share, phi), 'PX', px(tenant_life))
  elseif l and tenant_life > MINUTE then
    -- The rate may have been lowered since: what was kept for the old refill must not go before the new one.
    redis.call('PEXPIRE', KEYS[2], px(tenant_life))
  end
  return { decision, pack('<ddd', level, up.factor, shadowed_wait), flying, shadowed, ... }
end

if what == 'q' then return close('q') end

-- 1. The record.

local lease = m + lease_us
local token, sticky, standing = '', '0', 'absent'
local ends_at, wipe = 0, false
local body_until = -1

if KEYS[4] then
  local r = redis.pcall('HMGET', KEYS[4], 'state', 'nonce', 'version', 'print', 'token', 'mac', 'sticky', 'times')
  local state, held = r[1], nil
  if state then held, ends_at, body_until = times(r[8]) end
  token = ARGV[6]
  if r.err or not state then
    if r.err or redis.call('EXISTS', KEYS[4]) == 1 then standing, wipe = 'foreign', true end
  elseif not (held and r[3] and r[4] and r[5] and r[6] and (r[7] == '0' or r[7] == '1')
    and (state == 'f' and r[2] or state == 'd' and body_until ~= -1 or state == 't' or state == 'u')) then
    standing, wipe = 'foreign', true
  elseif ends_at <= m then
    wipe = true
  elseif r[3] ~= ARGV[4] or r[4] ~= ARGV[5] then
    if is_written(r[3], r[4], r[5], r[6]) and ARGV[8] ~= r[6] then return close('m', r[6], r[4], r[5], r[3]) end
    standing, wipe = 'foreign', true
  elseif r[5] ~= token or r[6] ~= ARGV[7] then
    -- The same content has the same token and mac: this record was not written by us.
    standing, wipe = 'foreign', true
  else
    sticky = r[7]
    if state == 'f' and r[2] == nonce then
      standing, lease = 'ours', max(lease, held <= last_lease and held or 0)
    elseif state == 'f' and runs(held, m) then
      return close('b', held - m)
    elseif state == 't' then
      return close('t')
    elseif body_until ~= -1 then
      -- Done; or taken over to be sealed anew, and that never ended: the body is what it was.
      if body_until <= m then
        local reply = close('t')
        redis.call('HSET', KEYS[4], 'state', 't', 'times', pack('<ddd', held, ends_at, -1))
        redis.call('HDEL', KEYS[4], 'body')
        return reply
      end
      local body = redis.call('HGET', KEYS[4], 'body')
      if body and body ~= ARGV[8] then return close('r', body, r[6]) end
      standing = 'uncertain'
    else
      standing = 'uncertain'
    end
  end
  if wipe or standing == 'absent' then ends_at, body_until = 0, -1 end
  if standing == 'foreign' or standing == 'uncertain' then sticky = '1' end
  if attempt and standing ~= 'ours' then return close('l') end
  if attempt and uncertain == 1 then sticky = '1' end
end

if what == 'p' then return close('l') end

-- A call without a record is known by its lease alone.
local function own_lease()
  local score = not flights_foreign and tonumber(redis.call('ZSCORE', KEYS[3], nonce))
  return score and runs(score, m) and score
end

local mended = not attempt and standing == 'ours'
if not KEYS[4] then
  local running = own_lease()
  if running then lease, mended = max(lease, running), not attempt end
end

-- 2. The tenant's ceiling; 3. its calls in flight. A further attempt has passed both.

if not attempt and not mended then
  if level < 1 - TOLERANCE then
    local wait = (1 - level) / tenant_rate
    if shadow == 0 then return close('x', 1, pack('<d', wait)) end
    shadowed, shadowed_wait = 1, wait
  end
  if flying >= most then
    local others = flying
    if KEYS[4] and own_lease() then others = flying - 1 end
    if others >= most then
      local ends = redis.call('ZRANGEBYSCORE', KEYS[3], after_m, last_lease, 'WITHSCORES', 'LIMIT', others - most, 1)
      local wait = (tonumber(ends[2]) - m) / 1e6
      if shadow == 0 then return close('x', 2, pack('<d', wait)) end
      if shadowed == 0 then shadowed, shadowed_wait = 2, wait end
    end
  end
end

-- 4. The upstream's budget.

if not mended then
  local speed, wait = up.factor * rate, nil
  local is_committed = share >= 1 - TOLERANCE
  if is_committed then
    if up.level < 1 - TOLERANCE then wait = (1 - up.level) / speed end
  else
    local queue = asks_first and (up.tail - m) / 1e6
    local ahead = queue and queue > 0 and math.ceil(queue * speed - TOLERANCE) or 0
    if up.level < reserved + 1 + ahead - TOLERANCE then
      wait = (reserved + 1 - up.level) / speed
      if queue then wait = max(wait, queue + 1 / speed) end
    end
  end
  if wait then
    local longest = longest_us / 1e6
    if not (wait <= longest + 1e-9) then return close('x', 3, pack('<d', wait - longest)) end
    if asks_first and not is_committed then up.tail = m + wait * 1e6 end
    return close('w', pack('<d', wait))
  end
  up.level = up.level - 1
  if is_committed then share, tenant_dirty = share - 1, true end
  if not attempt then
    level, tenant_dirty = level - 1, true
    -- Shadow: what is let through above the rate is not owed later.
    if shadowed == 1 then level = max(0, level) end
  end
end

-- Granted. The record lives for its retention from the first claim, and as long as its lease.

life = max(life, lease_us)
if KEYS[4] then
  if ends_at == 0 then ends_at = m + retention end
  ends_at = max(ends_at, lease)
  life = max(life, ends_at - m)
end
local reply = close('g', m, tonumber(sticky), token)
if flights_foreign then redis.call('DEL', KEYS[3]) end
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', m)
reply[3] = flying + redis.call('ZADD', KEYS[3], lease, nonce)
redis.call('PEXPIRE', KEYS[3], MAX_LEASE / 1e3)
if KEYS[4] then
  if wipe then redis.call('DEL', KEYS[4]) end
  redis.call('HSET', KEYS[4], 'state', 'f', 'nonce', nonce, 'version', ARGV[4], 'print', ARGV[5], 'token', token,
    'mac', ARGV[7], 'sticky', sticky, 'times', pack('<ddd', lease, ends_at, body_until))
  redis.call('PEXPIRE', KEYS[4], px(max(MINUTE, ends_at - m)))
end
return reply
