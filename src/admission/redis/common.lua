-- Precedes every script: updates one upstream's clock, factor and budget (docs/design/admission.md,
-- "Levels and time" and "The factor").
--
-- Every time is in microseconds of the upstream's own clock m, except `now`, which is Redis TIME.
-- Figures are sent and stored as little-endian doubles: Redis needs more time for numbers as text
-- than for the rest of a script. Numbers that are passed to redis.call keep their digits. A number
-- that becomes part of a text goes through int(), since `..` and tostring() round to 14 digits.

local TOLERANCE = 1e-6
local MAX_LEASE = 3600e6
local MINUTE = 60e6
local FOREVER = 365 * 86400e6
local MAX_HINT = 30e6

-- The first byte of every packed value names its layout. A script reads every layout that stands
-- here, and writes one of them. A value of any other counts as lost: docs/design/admission.md,
-- "Layouts".
local LAYOUTS = {
  [1] = { upstream = '<Bdddddddddd', tenant = '<Bddddddd', times = '<Bddd' },
}
local WRITTEN = 1

local floor, max, min = math.floor, math.max, math.min

-- A command on a key that may be of another type: its error is the reply. Any other error ends the
-- script. A command that the user may not run must not look like a foreign key.
local function try(...)
  local reply = redis.pcall(...)
  if type(reply) == 'table' and reply.err and not reply.err:find('WRONGTYPE', 1, true) then
    redis.call(...)
  end
  return reply
end

local function pack(what, ...) return struct.pack(LAYOUTS[WRITTEN][what], WRITTEN, ...) end

-- The layout and the figures of a packed value; nothing where it is of no layout that is known.
local function figures(kept, what)
  local layout = kept and LAYOUTS[kept:byte()]
  if layout and #kept == struct.size(layout[what]) then return struct.unpack(layout[what], kept) end
end

local function int(n) return string.format('%d', n) end

-- From microseconds to the milliseconds of PX, rounded up.
local function px(us) return int(floor(us / 1e3) + 1) end

-- Whether it is finite, not NaN, and exact as a double.
local function is_time(n) return n >= 0 and n < 9e15 end

-- If the upstream's key was lost, m restarts, and the old leases are too far ahead. Such a lease
-- counts as ended.
local function runs(lease, m) return lease > m and lease <= m + MAX_LEASE end

-- m advances as Redis TIME advances, and stands still where TIME steps back. The factor recovers by
-- 1/16 a second. phi is the integral of the factor over m: levels refill with it, so that a long
-- gap is not refilled at the present factor.
local function advance(kept, clock, rate, burst, throttled)
  local now = clock
  if now < 0 then
    local time = redis.call('TIME')
    now = time[1] * 1e6 + time[2]
  end
  local before, last, level, phi, factor = now, now, burst, 0, 1
  local halved, keep, promised, served, arrivals = -1e7, 0, 0, 0, 0
  local _, m, at, v, p, f, h, k, hint, tag, count = figures(kept, 'upstream')
  if m then
    local sum = v + p + f + h + k + hint + tag + count
    if is_time(m) and is_time(at) and sum - sum == 0 then
      before, last, level, phi, factor = m, at, v, p, f
      halved, keep, promised, served, arrivals = h, k, hint, tag, count
    end
  end
  m = before + max(0, now - last)
  local dt = (m - before) / 1e6
  factor = max(1 / 16, min(1, factor))
  local rising = min(dt, (1 - factor) * 16)
  local dphi = factor * rising + rising * rising / 32 + (dt - rising)
  local up = {
    now = now,
    m = m,
    level = max(-1, min(burst, level + rate * dphi)),
    phi = phi + dphi,
    factor = min(1, factor + rising / 16),
    halved = halved,
    keep = keep,
    promised = promised,
    served = served,
    arrivals = arrivals,
  }
  if throttled >= 0 and throttled > halved and m - halved >= 1e6 then
    up.factor = max(1 / 16, up.factor / 2)
    up.halved = m
  end
  return up
end

-- Always the first write of a script, and one that maxmemory refuses. After a first write that only
-- frees memory, Redis would refuse no later write. The key outlives every key whose times are in
-- its m.
local function store(key, up, life)
  local m = up.m
  local keep = min(max(up.keep, m + life, m + MINUTE), m + FOREVER)
  local packed = pack('upstream', m, up.now, up.level, up.phi, up.factor, up.halved, keep,
    up.promised, up.served, up.arrivals)
  redis.call('SET', key, packed, 'PX', px(keep - m))
end

-- A tenant on the upstream: the level of its ceiling and its time, and its committed share and its
-- phi. Then come the ends of the last hints by its rate and by its calls in flight. The last is how
-- many of its queued calls have paid. Nil: nothing is stored, and every bucket is full.
local function read_tenant(kept)
  local _, level, at, share, share_phi, promised, flights_promised, queued =
    figures(kept, 'tenant')
  if not level then return nil end
  local sum = level + share + share_phi + promised + flights_promised + queued
  if is_time(at) and sum - sum == 0 then
    return {
      level = level,
      at = at,
      share = share,
      share_phi = share_phi,
      promised = promised,
      flights_promised = flights_promised,
      queued = queued,
    }
  end
end

local function pack_tenant(t)
  return pack('tenant', t.level, t.at, t.share, t.share_phi, t.promised, t.flights_promised,
    t.queued)
end

-- A queued call, as a member of the queue's sets. The kind says what it holds. A `call` has paid at
-- the ceiling and has a place in flight. A `committed` call holds the same, but waits for the next
-- token and for no other call. An `attempt` belongs to a granted call. `rate` and `in_flight` name
-- the limit that shadow enforcement let the call exceed.
local function member(nonce, kind, tenant) return nonce .. '/' .. kind .. '/' .. tenant end

-- The times of a record: the end of its lease, the end of the record, and the end of its body (-1:
-- no body).
local function times(kept)
  local _, lease, ends_at, body_until = figures(kept, 'times')
  if not lease or not is_time(lease) or not is_time(ends_at) then return nil end
  if body_until == -1 or is_time(body_until) then return lease, ends_at, body_until end
end

-- Whether a record is of the form that a gateway writes. `held` and `body_until` are of times().
local function is_whole(held, body_until, state, holder, version, print, token, mac, sticky)
  return held and version and print and token and mac and (sticky == '0' or sticky == '1')
    and (state == 'in_flight' and holder or state == 'done' and body_until ~= -1
      or state == 'tombstone' or state == 'uncertain')
end

-- The time in which a bucket fills.
local function refill(size, rate)
  if rate > 0 then return min(size / rate * 1e6, FOREVER) end
  return FOREVER
end
