-- Decides a call, a waiting call's next ask, a further attempt, or reads the levels: see `Store::admit` and `quota`.
--
-- KEYS  1 the upstream: hash {m, last, level, phi, factor, halved, tail, keep}
--       2 the tenant on it: hash {level, at, share, share_phi}
--       3 its calls in flight: sorted set, nonce -> end of lease
--       4 the record, only where the call has a client token: hash
--         {state: f in flight | d done | t tombstone | u uncertain, nonce, lease, version, print, token, mac,
--          sticky, until, body, body_until}
-- ARGV  1 what: q quota | p the record only | f first | a again | t attempt | T attempt, again
--       2 the clock, in tests; empty: TIME
--       3 R, 4 B, 5 tokens reserved, 6 the last attempt's m where Connect throttled it, else -1
--       7 tenant's rate, 8 burst, 9 committed rate, 10 burst of that, 11 calls in flight, 12 shadow 1|0
--      13 nonce, 14 lease, 15 longest wait, all times in us
--      with a record: 16 version, 17 fingerprint, 18 upstream token, 19 mac, 20 retention, 21 uncertain 1|0,
--      22 what is distrusted, or empty
-- Reply { decision, level (text), in flight, factor (text), shadowed: 0 | 1 rate | 2 in flight, its wait in s (text), … }
--       q                                         levels only
--       g m, sticky 1|0, token                    granted (token empty without a record)
--       r body, mac                               replay
--       m mac, fingerprint, token, version        mismatch
--       b us                                      busy: what is left of the lease
--       t                                         tombstone
--       l                                         the attempt's claim is lost; p: the record has no answer
--       x limit (1 rate, 2 in flight, 3 budget), s (text)    refused, and its wait
--       w s (text)                                ask again
-- Whatever is not granted has charged, claimed and leased nothing; the clock is kept always.

local what, nonce = ARGV[1], ARGV[13]
local rate, burst = tonumber(ARGV[3]), tonumber(ARGV[4])
local tenant_rate, tenant_burst = tonumber(ARGV[7]), tonumber(ARGV[8])
local committed, share_burst = tonumber(ARGV[9]), tonumber(ARGV[10])
local attempt = what == 't' or what == 'T'
local asks_first = what == 'f' or what == 't'

local up = advance(KEYS[1], ARGV[2], rate, burst, tonumber(ARGV[6]))
local m = up.m

local got, tenant_foreign = fields(KEYS[2], 'level', 'at', 'share', 'share_phi')
local at, share_phi = number(got[2], m), number(got[4], up.phi)
local level = number(got[1], tenant_burst) + tenant_rate * math.max(0, m - at) / 1e6
level = math.max(-1, math.min(tenant_burst, level))
local share = math.min(share_burst, number(got[3], share_burst) + committed * math.max(0, up.phi - share_phi))
-- Stamps ahead of the clock come from before a loss: taken as of now, or nothing would refill until it catches up.
local tenant_dirty = at > m or share_phi > up.phi

local flying = redis.pcall('ZCOUNT', KEYS[3], '(' .. int(m), int(m + MAX_LEASE))
local flights_foreign = type(flying) == 'table'
if flights_foreign then flying = 0 end

-- The buckets' own refills; f, which slows the share's, is back at 1 after 16 s.
local tenant_life = math.max(MINUTE, refill(tenant_burst, tenant_rate))
if committed > 0 then tenant_life = math.max(tenant_life, refill(share_burst, committed) + 16e6) end
local life = math.max(tenant_life, refill(burst, rate) + 16e6)
local shadowed, shadowed_wait = 0, 0

local function close(decision, ...)
  store(up, life)
  if tenant_dirty then
    if tenant_foreign then redis.call('DEL', KEYS[2]) end
    redis.call('HSET', KEYS[2], 'level', level, 'at', m, 'share', share, 'share_phi', up.phi)
    redis.call('PEXPIRE', KEYS[2], int(tenant_life / 1e3 + 1))
  end
  return { decision, text(level), flying, up.factor == 1 and '1' or text(up.factor),
    shadowed, shadowed == 0 and '' or text(shadowed_wait), ... }
end

if what == 'q' then return close('q') end

-- 1. The record.

local lease = m + tonumber(ARGV[14])
local token, sticky, standing = '', '0', 'absent'
local ends_at, wipe = 0, false

if KEYS[4] then
  local r, foreign = fields(KEYS[4], 'state', 'nonce', 'lease', 'version', 'print', 'token', 'mac', 'sticky', 'until',
    'body_until')
  local state, held, body_until = r[1], number(r[3]), number(r[10])
  ends_at = number(r[9], 0)
  local shaped = (state == 'f' and r[2] and held or state == 'd' and body_until or state == 't' or state == 'u')
    and tonumber(r[4]) and r[5] and r[6] and r[7] and (r[8] == '0' or r[8] == '1') and number(r[9])
  token = ARGV[18]
  if not shaped then
    if foreign or state or redis.call('EXISTS', KEYS[4]) == 1 then standing, wipe = 'foreign', true end
  elseif ends_at <= m then
    wipe = true
  elseif r[4] ~= ARGV[16] or r[5] ~= ARGV[17] then
    if ARGV[22] == '' or ARGV[22] ~= r[7] then return close('m', r[7], r[5], r[6], r[4]) end
    standing, wipe = 'foreign', true
  elseif r[6] ~= ARGV[18] or r[7] ~= ARGV[19] then
    -- The same content has the same token and mac: this record was not written by us.
    standing, wipe = 'foreign', true
  else
    sticky = r[8]
    if state == 'f' and r[2] == nonce then
      standing, lease = 'ours', math.max(lease, held <= m + MAX_LEASE and held or 0)
    elseif state == 'f' and runs(held, m) then
      return close('b', held - m)
    elseif body_until and state ~= 't' then
      -- Done; or taken over to be sealed anew, and that never ended: the body is what it was.
      if body_until <= m then
        life = math.max(life, ends_at - m)
        local reply = close('t')
        redis.call('HSET', KEYS[4], 'state', 't')
        redis.call('HDEL', KEYS[4], 'body', 'body_until')
        return reply
      end
      local body = redis.call('HGET', KEYS[4], 'body')
      if body and body ~= ARGV[22] then return close('r', body, r[7]) end
      standing = 'uncertain'
    elseif state == 't' then
      return close('t')
    else
      standing = 'uncertain'
    end
  end
  if wipe then ends_at = 0 end
  if standing == 'foreign' or standing == 'uncertain' then sticky = '1' end
  if attempt and standing ~= 'ours' then return close('l') end
  if attempt and ARGV[21] == '1' then sticky = '1' end
end

if what == 'p' then return close('l') end

-- A call without a record is known by its lease alone.
local function own_lease()
  local score = not flights_foreign and number(redis.call('ZSCORE', KEYS[3], nonce))
  return score and runs(score, m) and score
end

local mended = not attempt and standing == 'ours'
if not KEYS[4] then
  local running = own_lease()
  if running then lease, mended = math.max(lease, running), not attempt end
end

-- 2. The tenant's ceiling; 3. its calls in flight. A further attempt has passed both.

if not attempt and not mended then
  local shadow = ARGV[12] == '1'
  if level < 1 - TOLERANCE then
    local wait = (1 - level) / tenant_rate
    if not shadow then return close('x', 1, text(wait)) end
    shadowed, shadowed_wait = 1, wait
  end
  local most = tonumber(ARGV[11])
  if flying >= most then
    local others = flying
    if KEYS[4] and own_lease() then others = flying - 1 end
    if others >= most then
      local ends = redis.call('ZRANGEBYSCORE', KEYS[3], '(' .. int(m), int(m + MAX_LEASE), 'WITHSCORES', 'LIMIT',
        int(others - most), 1)
      local wait = (number(ends[2], m) - m) / 1e6
      if not shadow then return close('x', 2, text(wait)) end
      if shadowed == 0 then shadowed, shadowed_wait = 2, wait end
    end
  end
end

-- 4. The upstream's budget.

if not mended then
  local speed, reserved, wait = up.factor * rate, tonumber(ARGV[5]), nil
  local is_committed = share >= 1 - TOLERANCE
  if is_committed then
    if up.level < 1 - TOLERANCE then wait = (1 - up.level) / speed end
  else
    local queue = asks_first and (up.tail - m) / 1e6
    local ahead = queue and queue > 0 and math.ceil(queue * speed - TOLERANCE) or 0
    if up.level < reserved + 1 + ahead - TOLERANCE then
      wait = (reserved + 1 - up.level) / speed
      if queue then wait = math.max(wait, queue + 1 / speed) end
    end
  end
  if wait then
    local longest = tonumber(ARGV[15]) / 1e6
    if not (wait <= longest + 1e-9) then return close('x', 3, text(wait - longest)) end
    if asks_first and not is_committed then up.tail = m + wait * 1e6 end
    return close('w', text(wait))
  end
  up.level = up.level - 1
  if is_committed then share, tenant_dirty = share - 1, true end
  if not attempt then
    level, tenant_dirty = level - 1, true
    -- Shadow: what is let through above the rate is not owed later.
    if shadowed == 1 then level = math.max(0, level) end
  end
end

-- Granted. The record lives for its retention from the first claim, and as long as its lease.

life = math.max(life, lease - m)
if KEYS[4] then
  if ends_at == 0 then ends_at = m + tonumber(ARGV[20]) end
  ends_at = math.max(ends_at, lease)
  life = math.max(life, ends_at - m)
end
local reply = close('g', m, tonumber(sticky), token)
if flights_foreign then redis.call('DEL', KEYS[3]) end
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', int(m))
reply[3] = flying + redis.call('ZADD', KEYS[3], int(lease), nonce)
redis.call('PEXPIRE', KEYS[3], int(MAX_LEASE / 1e3))
if KEYS[4] then
  if wipe then redis.call('DEL', KEYS[4]) end
  redis.call('HSET', KEYS[4], 'state', 'f', 'nonce', nonce, 'lease', lease, 'version', ARGV[16], 'print', ARGV[17],
    'token', token, 'mac', ARGV[19], 'sticky', sticky, 'until', ends_at)
  redis.call('PEXPIRE', KEYS[4], int(math.max(MINUTE, ends_at - m) / 1e3 + 1))
end
return reply
