-- What a subject used in the last minute, in one hash: requests and tokens of each second (r<second>, t<second>), their sums
-- (requests, tokens), and the first and last second there are. Put before each of the other scripts.
local WINDOW = 60

-- Milliseconds by this server's clock: those of the processes that ask may differ.
local function now_ms(given)
  if given ~= '' then
    return tonumber(given)
  end
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function numbers(values)
  for index = 1, #values do
    values[index] = tonumber(values[index] or 0) or 0
  end
  return values
end

local function add(key, second, requests, tokens)
  redis.call('HINCRBY', key, 'requests', requests)
  redis.call('HINCRBY', key, 'tokens', tokens)
  redis.call('HINCRBY', key, 'r' .. second, requests)
  redis.call('HINCRBY', key, 't' .. second, tokens)
  redis.call('HSETNX', key, 'first', second)
  redis.call('HSET', key, 'last', second)
  redis.call('EXPIRE', key, WINDOW + 2)
end

-- Forgets what no longer counts. Returns the sums, and the first and last second (nil where nothing is left).
local function window(key, second)
  local requests, tokens, first, last =
    unpack(numbers(redis.call('HMGET', key, 'requests', 'tokens', 'first', 'last')))
  if last == 0 then
    return 0, 0
  end
  if last < second - WINDOW then
    redis.call('DEL', key)
    return 0, 0
  end
  if last > second then
    -- The clock was turned back. Everything becomes of now: it may count too long once, never too short.
    redis.call('DEL', key)
    add(key, second, requests, tokens)
    return requests, tokens, second, second
  end
  if first < second - WINDOW then
    for old = first, second - WINDOW - 1 do
      local gone = numbers(redis.call('HMGET', key, 'r' .. old, 't' .. old))
      requests, tokens = requests - gone[1], tokens - gone[2]
      redis.call('HDEL', key, 'r' .. old, 't' .. old)
    end
    first = second - WINDOW
    redis.call('HSET', key, 'requests', requests, 'tokens', tokens, 'first', first)
  end
  return requests, tokens, first, last
end

-- Milliseconds until that second does not count any more.
local function forgotten_in(second, now)
  return (second + 1 + WINDOW) * 1000 - now
end
