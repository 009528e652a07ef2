-- A chat request for wrk: the body is read from the file that BENCH_BODY names.
local file = assert(io.open(assert(os.getenv("BENCH_BODY")), "rb"))
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = file:read("*a")
file:close()

-- One line for the script to read: requests, failures, and microseconds.
function done(summary, latency, requests)
    local errors = summary.errors
    local failures = errors.connect + errors.read + errors.write + errors.status + errors.timeout
    io.write(string.format("result %d %d %d %d %d %d\n", summary.requests, failures,
        summary.duration, latency:percentile(50), latency:percentile(90), latency:percentile(99)))
end
