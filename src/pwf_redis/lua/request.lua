-- request.lua: what is asked, and how runs are stored.
--
-- The first part of one constant script, put together when scripts are loaded: this one, messages.lua, and
-- then start.lua, which begins runs; or runs.lua, transition.lua with the rules (and joins.lua and rare.lua
-- with those that are made when they are needed), and exchange.lua, which moves runs on.
--
-- KEYS[1]   pwf:{namespace:partition}:due. Its prefix names every other key; all share its slot.
-- ARGV[1]   The request: msgpack values, one after the other:
--             now_ms             0 for the server's clock
--             format             what the caller believes that `format` says
--             paired             true: calls go through an outbox; false: into streams here
--             retention_ms
--             dead_retention_ms
--             key_grace_ms       how long a key outlives its run
--             count              of commands, which follow (shapes: transition.lua, rare.lua and start.lua)
--           and then what the entry point says.
-- ARGV[n]   Payloads; commands name them by n. They are never looked into.
--
-- Theory of operation. First everything is read and judged, on copies in Lua tables; then everything
-- is written (`flush`, and `write` of start.lua), with commands that cannot fail. So an error in between leaves
-- nothing behind, an item sees what earlier ones did, a run that many items name is read and
-- written once, and what was born and ended within one script never touches the keyspace.
--
-- What costs time in Redis's Lua: calls into Redis (2 us each, so they are few), tables that grow
-- (so they are made in their final size where that is known), and new strings, numbers made into
-- text above all (so each is made once, see `packed` in runs.lua, and `digits`). Hence records are msgpack
-- values one after the other, not arrays: `{ cmsgpack.unpack(record) }` makes one table.
-- And functions, which are made anew each time a script is run, unless the server keeps them: for each
-- local of the same block that one shares with it, Lua walks through all that are shared there. So a line
-- `--== … ==` begins a chapter: it becomes a function within the chapter before (scripts.py), whose locals
-- are found at once. Where the server keeps functions, their locals stay, too: so what a script changes,
-- `begin_…` sets when it begins.
--
-- A later version of the same FORMAT may append values to a record: strings, numbers, booleans, and
-- lists of these that are not empty, but no nil. They are not read here, and stay with the record
-- however often it is written. What has to change whenever something else does needs a new FORMAT.
--
-- A run is one hash, `run:<run id>`:
--   h                   header (H_ below)
--   k                   the user's key, where there is one
--   y                   why the run failed or stalled, where that is known
--   b:<call id>         body of a call, or of the call that a join or a gather will make, unless small
--   c:<call id>         call (C_ below)
--   y:<call id>         its last error, or why it is parked
--   e:<event>           payload of an event that has happened
--   j:<call id>         join that has not fired (J_ below)
--   w:<event>           the join registered last of those that miss this event; each names the one
--                       before it, so that registering costs the same however many there are
--   s:<call id>         gather that has not fired (S_ below)
--   r:<scope>:<member>  result of a member; "r::0" is the run's own
--   u:<call id>:<n>     part of a decision that is not committed yet, or not made into calls (U_ below)
--   n:<call id>         what is left to do of a call that has been committed (N_ below)
-- Beside it, all sorted sets have members <run id>:<call id>:<service>:
--   due                 sorted set by due time; a run's own timer is <run id>::
--   dead                sorted set of dead letters by time of death
--   key:<key>           <run id>:<fingerprint>
--   done:<run id>       channel that hears how the run ended
--   format              the FORMAT of the namespace, a blank, and "fused" or "paired"; where there are
--                       partitions, how many: see pwf_redis/layout.py

local request, at  -- and where in it we are
local settings, now, format, paired, retention_ms, dead_retention_ms, key_grace_ms
local prefix
local digits       -- number -> its decimal digits

local unpack_limit = cmsgpack.unpack_limit

-- Return the next values of the request as a table, from index 2 on.
local function read(size)
  local values = { unpack_limit(request, size, at) }
  at = values[1]
  return values
end

-- Lua's `unpack` fails by 8,000 values. Even, for commands that take pairs.
local CHUNK = 1000

-- The numbers of pwf_core.transition.
local MAX_LOST, SUSPECT_LOST, DEFER_MS, OUTBOX_MS = 5, 2, 100, 2000
local UNCLAIMED_MS, MOST_UNCLAIMED = 60000, 4

local FORMAT = 1
local H_FORMAT, H_STATUS, H_PENDING, H_LIVE, H_DEAD, H_DROPPED, H_EXTERNAL, H_DUE, H_EVENTS =
  1, 2, 3, 4, 5, 6, 7, 8, 9
-- H_RESTS lists <call id>:<service> of what is left to do of calls, as it stands in `due`.
local H_TIMED, H_RESTS = 10, 11
local RUNNING, WAITING, STALLED, FINISHED, FAILED, CANCELLED = 1, 2, 3, 4, 5, 6

-- The first two are this script's own: whether the call is to be written, and its member in sorted
-- sets (false: not needed yet). A small body is part of the record; a larger one (in bytes) has a
-- field of its own, so that it is written once, and false stands here.
local C_WRITE, C_NAME = 1, 2
local C_PHASE, C_GENERATION, C_ATTEMPTS, C_LOST, C_DUE, C_CLAIM = 3, 4, 5, 6, 7, 8
local C_ADDRESS, C_SCOPE, C_MEMBER, C_GATHERED, C_JOINED, C_REASON = 9, 10, 11, 12, 13, 14
local C_UNCLAIMED, C_BODY, C_CHUNKS = 15, 16, 17
local SMALL = 512
local OUTBOX, QUEUED, LEASED, TIMED, PARKED, DEAD = 1, 2, 3, 4, 5, 6

-- Joins and gathers are made into calls by the same code: M_ is what both have in front.
local M_ADDRESS, M_DELAY, M_AT, M_SCOPE, M_MEMBER, M_BODY = 1, 2, 3, 4, 5, 6
-- J_LATE is false, or { call id, address, delay, at, body }: the call made when J_DUE (or 0) is over.
local J_EVENTS, J_EXTERNAL, J_BEFORE, J_MISSING, J_OUTSIDE = 7, 8, 9, 10, 11
local J_DUE, J_LATE, J_LAPSED = 12, 13, 14
-- S_WRITE is this script's own: whether the gather is to be written; `unpack` begins at 1.
local S_WRITE, S_SIZE, S_TOLERATED, S_FAILED, S_LOST, S_PENDING = 0, 7, 8, 9, 10, 11

-- A part of a decision is one msgpack array, of U_WIDTH values for each call: id, address, body, delay,
-- due, number of the gather from 0 (or -1), number of the member.
local U_WIDTH = 7
local N_ADDRESS, N_DUE, N_SCOPE, N_MEMBER, N_CHUNK, N_CHUNKS, N_RESULTS, N_GATHERS = 1, 2, 3, 4, 5, 6, 7, 8

-- The numbers of pwf_core.scopes.
local BROUGHT, PAGE, PAGE_BYTES = 250, 1000, 262144

-- The form of a failure among results: see pwf_core/failures.py.
local EXTENSION, FAILURE, LONGEST = 201, 80, 4096

local DONE, ENDED, LOST, BUSY, STALE, DEFERRED, REFUSED = 0, 1, 2, 3, 4, 5, 6

local NONE = {}  -- an empty list, never changed

local DIGITS = { __index = function(known, number)
  local text = tostring(number)
  known[number] = text
  return text
end }

local function begin_request()
  request, at = ARGV[1], 0
  settings = read(7)
  now, format, paired, retention_ms = settings[2], settings[3], settings[4], settings[5]
  dead_retention_ms, key_grace_ms = settings[6], settings[7]
  prefix = string.sub(KEYS[1], 1, -4)
  digits = setmetatable({}, DIGITS)
end

-- Have the time in `now`: the server's, unless the caller has said one.
local function set_clock()
  if now == 0 then
    local time = redis.call('TIME')
    now = time[1] * 1000 + math.floor(time[2] / 1000)
  end
end

local function judge_format(found)
  if found ~= FORMAT then error('the run is stored in format ' .. tostring(found), 0) end
end

-- A command is a table; [1] is not used, [2] its kind, [3] its run id. In the request each takes
-- nine values, filled up at the end.
local START, CLAIM, RENEW, COMMIT, POSTPONE, BURY, EMIT, SETTLE, FIRE, REQUEUE, DROP, CANCEL =
  1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12
local STAGE, COLLECT = 13, 14
local WIDTH = 9

local function problem_of(problem)
  return type(problem) == 'table' and problem.err or tostring(problem)
end

-- A later version says first that it is going to write what we cannot read. From then on we write
-- nothing at all, however long this worker has been here.
local function other_format()
  local found = redis.call('GET', prefix .. 'format')
  return found and found ~= format and found
end
