-- Goes in front of both scripts: one upstream's clock, factor and budget, brought up to date.
--
-- Every time is in microseconds of the upstream's own clock m, but for `now` and `last`, which are Redis TIME.
-- Figures travel and are kept as little-endian doubles: Redis takes longer over numbers as text than over all the rest.
-- Numbers passed to redis.call keep their digits; what becomes part of a text goes through int(), since `..` and
-- tostring() round to 14 digits.

local TOLERANCE = 1e-6
local MAX_LEASE = 3600e6
local MINUTE = 60e6
local FOREVER = 365 * 86400e6

-- The first byte tells later layouts apart; what is not of this one counts as lost.
local LAYOUT = 1
local UPSTREAM, UPSTREAM_BYTES = '<Bdddddddd', 65
local TENANT, TENANT_BYTES = '<Bdddd', 33

local floor, max, min = math.floor, math.max, math.min
local pack, unpack = struct.pack, struct.unpack

local function int(n) return string.format('%.0f', n) end

-- From microseconds to the milliseconds of PX, never less.
local function px(us) return floor(us / 1e3) + 1 end

-- Neither NaN nor infinite, and what a double counts exactly.
local function is_time(n) return n >= 0 and n < 9e15 end

-- A lease in the far future is a clock's doing: m starts anew where the upstream was lost.
local function runs(lease, m) return lease > m and lease <= m + MAX_LEASE end

-- Time goes forward by what Redis TIME went forward, and stands still where that steps back. f recovers by 1/16 a
-- second; phi, the integral of f over m, is what levels refill with, so that a long gap is not refilled at today's f.
local function advance(kept, clock, rate, burst, throttled)
  local now = clock
  if now < 0 then
    local time = redis.call('TIME')
    now = time[1] * 1e6 + time[2]
  end
  local before, last, level, phi, f, halved, tail, keep = now, now, burst, 0, 1, -1e7, 0, 0
  if kept and #kept == UPSTREAM_BYTES and kept:byte() == LAYOUT then
    local _, a, b, c, d, e, g, h, i = unpack(UPSTREAM, kept)
    local sum = c + d + e + g + h + i
    if is_time(a) and is_time(b) and sum - sum == 0 then
      before, last, level, phi, f, halved, tail, keep = a, b, c, d, e, g, h, i
    end
  end
  local m = before + max(0, now - last)
  local dt = (m - before) / 1e6
  f = max(1 / 16, min(1, f))
  local rising = min(dt, (1 - f) * 16)
  local dphi = f * rising + rising * rising / 32 + (dt - rising)
  local up = {
    now = now,
    m = m,
    level = max(-1, min(burst, level + rate * dphi)),
    phi = phi + dphi,
    factor = min(1, f + rising / 16),
    halved = halved,
    tail = tail <= m + MAX_LEASE and tail or 0,
    keep = keep,
  }
  if throttled >= 0 and throttled > halved and m - halved >= 1e6 then
    up.factor = max(1 / 16, up.factor / 2)
    up.halved = m
  end
  return up
end

-- The first write of a script, always, and one that maxmemory refuses: after one that only frees memory Redis would
-- refuse none. What is kept outlives everything that is measured in its m.
local function store(key, up, life)
  local m = up.m
  local keep = min(max(up.keep, m + life, m + MINUTE), m + FOREVER)
  redis.call('SET', key, pack(UPSTREAM, LAYOUT, m, up.now, up.level, up.phi, up.factor, up.halved, up.tail, keep),
    'PX', px(keep - m))
end

-- What is kept of a tenant: its level, when that was true, its share, and at which phi that was.
local function tenant(kept)
  if not kept or #kept ~= TENANT_BYTES or kept:byte() ~= LAYOUT then return nil end
  local _, level, at, share, share_phi = unpack(TENANT, kept)
  local sum = level + share + share_phi
  if is_time(at) and sum - sum == 0 then return level, at, share, share_phi end
end

-- What a record says of times: the end of its lease, its own, and its body's (-1: no body).
local function times(kept)
  if not kept or #kept ~= 24 then return nil end
  local lease, ends_at, body_until = unpack('<ddd', kept)
  if is_time(lease) and is_time(ends_at) and (body_until == -1 or is_time(body_until)) then
    return lease, ends_at, body_until
  end
end

-- How long a bucket takes to fill.
local function refill(size, rate)
  if rate > 0 then return min(size / rate * 1e6, FOREVER) end
  return FOREVER
end
