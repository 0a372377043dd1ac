"""The recording and alerting rules: what generate.py writes to prometheus/*.yml.

A duration that is a number of seconds stands alone on its line with the comment "# seconds", so that the script that
plays a day in minutes finds it beside the ranges and the `for`s.
"""

# Where the runbooks are served from. `generate.py --runbooks URL` writes another base into all rules.
RUNBOOKS = "https://github.com/langmartai/langmart-prober/blob/main/packaging/runbooks"

DOWN = 'fault=~"gateway|provider|network"'

# Probes whose last run began while the prober was offline, or within a minute after it was last seen so: what they say is
# about the prober.
RAN_OFFLINE = """(
  langmart_probe_last_run_timestamp_seconds
  <= on (job, instance) group_left ()
  max by (job, instance) (max_over_time(langmart_prober:offline:timestamp_seconds[1d])) +
  60 # seconds
)"""
OFFLINE_NOW = "on (job, instance) langmart_prober_offline == 1"

# For how many runs each member of a pool has failed. Who was told to wait for longer than two intervals has three rounds
# without an answer before it can fail for the third time.
POOL_FAILED = """(
  langmart_pool_member_failed_runs_in_a_row
  + on (job, instance, probe) group_left ()
  2 * (
    langmart_probe_backoff_until_timestamp_seconds - langmart_probe_last_run_timestamp_seconds
    > bool 2 * langmart_probe_interval_seconds
  )
)"""


def record(name, expr, comment=None, **labels):
    return {"record": name, "expr": expr.strip("\n"), "labels": labels, "comment": comment}


def recordings():
    """Groups of recording rules: name, interval, rules. An interval is well below the five minutes for which a sample is
    seen, or the series would come and go."""
    base = [
        record("langmart:slo_objective:ratio", "vector(0.99)",
               "The share of runs that must not fail by the service's fault. Change it here."),
        record("langmart:balance_low:usd", "vector(5)", "Below this, LangmartBalanceLow. Change it here."),
        record("langmart_prober:offline:timestamp_seconds",
               "timestamp(langmart_prober_offline) and langmart_prober_offline == 1",
               "When the prober was offline."),
        record("langmart_probe:available:bool", f"""
1 - sum without (fault) (langmart_probe_last_run_fault{{check!="status",{DOWN}}})
unless {OFFLINE_NOW}
unless {RAN_OFFLINE}""", "Whether the last run found the service up. Absent while the prober is offline."),
        record("langmart_probe:runs:rate5m", """
rate(langmart_probe_runs_total{check!="status"}[5m])
unless on (job, instance) max_over_time(langmart_prober_offline[5m]) == 1""",
               "Runs a second, without those of an offline prober: its failures are not the services'."),
        record("langmart_probe:errors:rate5m", f"""
sum without (reason, fault) (rate(langmart_probe_failures_total{{check!="status",{DOWN}}}[5m]))
unless on (job, instance) max_over_time(langmart_prober_offline[5m]) == 1""",
               "Of these, those that failed by the service's fault."),
        record("langmart_probe:availability_by_run:ratio5m",
               "1 - langmart_probe:errors:rate5m / (langmart_probe:runs:rate5m > 0)"),
        record("langmart_probe:availability_by_time:ratio5m", "avg_over_time(langmart_probe:available:bool[5m])"),
        record("langmart_probe:ratelimit_headroom:ratio",
               "langmart_probe_ratelimit_remaining / (langmart_probe_ratelimit_limit > 0)",
               "What is left of each rate limit."),
        record("langmart_probe:ratelimit_low_reading:timestamp_seconds", """
0 * (langmart_probe_ratelimit_remaining / (langmart_probe_ratelimit_limit > 0) < 0.1)
+ ignoring (resource) group_left () langmart_probe_last_success_timestamp_seconds""",
               "While little is left, the run that reported it: a run that fails without a reading is none."),
    ]
    groups = [("langmart-prober-slis", "30s", base + latency("5m"))]
    for window in ("30m", "1h"):
        groups.append((f"langmart-prober-slis-{window}", "1m", availability(window, "1m", 60) + latency(window)))
    groups.append(("langmart-prober-slis-6h", "1m", availability("6h", "1m", 60)))
    groups.append(("langmart-prober-slis-3d", "2m", availability("3d", "5m", 300)))
    groups.append(("langmart-prober-latency-long", "2m", long_latency()))
    groups.append(("langmart-prober-comparisons", "1m", comparisons()))
    return groups


def availability(window, step, seconds):
    """By run and by time, from what was recorded while the prober was not offline."""
    rules = []
    for what in ("runs", "errors"):
        rules.append(record(f"langmart_probe:{what}:increase{window}", f"""
sum_over_time(langmart_probe:{what}:rate5m[{window}:{step}])
* {seconds} # seconds"""))
    rules.append(record(f"langmart_probe:availability_by_run:ratio{window}",
                        f"1 - langmart_probe:errors:increase{window} / (langmart_probe:runs:increase{window} > 0)"))
    rules.append(record(f"langmart_probe:availability_by_time:ratio{window}",
                        f"avg_over_time(langmart_probe:available:bool[{window}:{step}])"))
    return rules


def latency(window):
    """Slow runs among the successes, quantiles, and the share within a bound, over ranges of the counters."""
    successes = (f'(increase(langmart_probe_runs_total[{window}])'
                 f' - sum without (reason, fault) (increase(langmart_probe_failures_total[{window}])))')
    rules = [record(f"langmart_probe:slow_runs:ratio{window}",
                    f"increase(langmart_probe_slow_runs_total[{window}])\n/ ({successes} > 0.5)")]
    for metric, bound, seconds in (("duration", "10s", "10"), ("time_to_first_token", "2s", "2")):
        name = f"langmart_probe_{metric}_seconds"
        rules.append(record(f"langmart_probe:{metric}_within_{bound}:ratio{window}",
                            # Prometheus 3 writes the bounds of buckets as floats.
                            f'sum without (le) (rate({name}_bucket{{le=~"{seconds}(\\\\.0)?"}}[{window}]))\n'
                            f'/ (rate({name}_count[{window}]) > 0)'))
        for quantile in ("0.5", "0.9"):
            rules.append(record(f"langmart_probe:{metric}_seconds:quantile{window}",
                                f"histogram_quantile({quantile}, rate({name}_bucket[{window}]))", quantile=quantile))
    return rules


def long_latency():
    """The same over windows for which ranges of raw buckets would be too long."""
    rules = []
    for metric in ("duration", "time_to_first_token"):
        rules.append(record(f"langmart_probe:{metric}_seconds_bucket:rate30m",
                            f"rate(langmart_probe_{metric}_seconds_bucket[30m])"))
    for window in ("6h", "3d"):
        rules.append(record(f"langmart_probe:slow_runs:ratio{window}",
                            f"avg_over_time(langmart_probe:slow_runs:ratio30m[{window}:30m])",
                            "The mean of the half hours."))
        for metric, bound, seconds in (("duration", "10s", "10"), ("time_to_first_token", "2s", "2")):
            name = f"langmart_probe:{metric}_seconds_bucket:rate30m"
            rules.append(record(f"langmart_probe:{metric}_within_{bound}:ratio{window}",
                                f'sum without (le) (avg_over_time({name}{{le=~"{seconds}(\\\\.0)?"}}[{window}:30m]))\n'
                                f'/ (sum without (le) (avg_over_time({name}{{le="+Inf"}}[{window}:30m])) > 0)'))
            for quantile in ("0.5", "0.9"):
                rules.append(record(f"langmart_probe:{metric}_seconds:quantile{window}",
                                    f"histogram_quantile({quantile}, avg_over_time({name}[{window}:30m]))",
                                    quantile=quantile))
    return rules


def comparisons():
    """What the gateway adds, in seconds: the mean over the pairs of which both succeeded."""
    rules = []
    for window in ("30m", "1h", "6h", "3d"):
        for part, name in (("", "overhead"), ("_first_token", "first_token_overhead")):
            rules.append(record(f"langmart_comparison:{name}_seconds:mean{window}",
                                f"(\n  increase(langmart_comparison_gateway{part}_seconds_total[{window}])\n"
                                f"  - increase(langmart_comparison_direct{part}_seconds_total[{window}])\n)\n"
                                f"/ (increase(langmart_comparison_pairs_total[{window}]) > 0.5)"))
    return rules


def alert(name, expr, severity, fault, summary, description, wait=None):
    labels = {"severity": severity}
    if fault:
        labels["fault"] = fault
    return {"alert": name, "expr": expr.strip("\n"), "for": wait, "labels": labels,
            "summary": summary, "description": " ".join(description.split())}


PROBE = "{{ $labels.probe }} ({{ $labels.provider }}{{ with $labels.model }}, {{ . }}{{ end }})"


def in_a_row(reason, count, by, more=""):
    return (f'max by ({by}) (\n'
            f'  langmart_probe_failed_runs_in_a_row{{check!="status",reason="{reason}"{more}}}\n) >= {count}')


def service_alert(name, reason, what, why, remedy):
    """Many failures of a reason in a quarter of an hour, or three in a row where runs are rare."""
    failures = (f'sum by (job, instance, provider, fault) (\n'
                f'    increase(langmart_probe_failures_total{{check!="status",reason="{reason}"}}[15m])\n  )')
    expr = f"""
(
  {failures} >= 5
  and
  {failures} > on (job, instance, provider) group_left ()
  0.1 * sum by (job, instance, provider) (increase(langmart_probe_runs_total{{check!="status"}}[15m]))
)
or
{in_a_row(reason, 3, "job, instance, provider, fault")}"""
    return alert(name, expr, "warning", None, "{{ $labels.provider }}: " + what,
                 f"{why} The fault is the {{{{ $labels.fault }}}}'s. {remedy}", "2m")


def burn(name, factor, long, short, count, severity, pace):
    """Silent soon after the prober was offline, too: of a short window little else may be left than the runs that failed
    before that was noticed. Who is woken by LangmartProbeDown is not woken again when it is over."""
    def budget(window):
        return (f"1 - langmart_probe:availability_by_run:ratio{window}\n"
                f"> on () group_left () {factor} * (1 - langmart:slo_objective:ratio)")
    over = f"""
unless on (job, instance, probe) (
  langmart_probe_down_runs_in_a_row == 0
  and max_over_time(langmart_probe_down_runs_in_a_row[{short}]) >= 3
)""" if severity == "critical" else ""
    expr = f"""
(
{indent(budget(long))}
)
and
(
{indent(budget(short))}
)
and langmart_probe:errors:increase{long} > {count}
and langmart_probe_interval_seconds <=
60 # seconds
unless on (job, instance) max_over_time(langmart_prober_offline[{"5m" if short == "5m" else "30m"}]) == 1{over}"""
    return alert(name, expr, severity, "service", f"{PROBE} burns its error budget {pace}",
                 f"""{{{{ $value | humanizePercentage }}}} of the runs of the last {long} failed by the fault of gateway,
                 provider or network; over the last {short} as well. Caller's and prober's faults and the time offline are
                 left out. Look at reasons and phases in the drill-down dashboard, then at the alerts of this provider.""",
                 "1m")


def indent(text):
    return "\n".join("  " + line for line in text.splitlines())


def verdict(name, verdict_name, fault, summary, description):
    def count(window, more=""):
        return f"sum by (job, instance, comparison) (increase(langmart_comparison_verdicts_total{more}[{window}]))"

    def bad(window):
        return count(window, '{verdict="%s"}' % verdict_name)

    expr = f"""
(
  {bad("30m")} >= 3
  and
  {bad("30m")} > 0.25 * {count("30m")}
)
or
(
  # Pairs that are more than ten minutes apart.
  {bad("3h")} >= 3
  and
  {bad("3h")} > 0.25 * {count("3h")}
  and
  {bad("1h")} > 0
  and
  {count("30m")} < 3
)"""
    return alert(name, expr, "warning", fault, summary, description)


def skips(window):
    counter = 'langmart_probe_skipped_runs_total{cause=~"pacing|overrun|concurrency"}'
    return f"sum by (job, instance, provider, cause) (increase({counter}[{window}]))"


RUNS = "sum by (job, instance, provider) (increase(langmart_probe_runs_total"


def certificate(name, days, severity):
    expr = f"""
min by (job, instance, provider) (langmart_probe_tls_certificate_not_after_timestamp_seconds) - time()
< {days} * 86400"""
    return alert(name, expr, severity, "service",
                 "{{ $labels.provider }}: a certificate ends in {{ $value | humanizeDuration }}",
                 f"""The earliest certificate of the chain that the host presents is valid for less than {days} days. Whoever
                 runs the host, or the proxy that stands in between, must renew it and serve the new chain.""", "10m")


def caller_alerts():
    return [
        alert("LangmartKeyRejected", in_a_row("auth_failed", 3, "job, instance, provider", ',fault="caller"'), "critical",
              "caller", "{{ $labels.provider }} rejects our key",
              """Three runs in a row got 401: the key is misspelled, expired, revoked, or of another environment. Check it in
              the dashboard under Settings > API Keys (or the provider's console), make a new one, put it where the
              configuration says, and reload; restart where that is a credential or a variable.""", "1m"),
        alert("LangmartStoredKeyRejected",
              in_a_row("auth_failed", 3, "job, instance, provider, model", ',fault="provider"'), "critical", "provider",
              "{{ $labels.provider }}: the key stored there{{ with $labels.model }} for {{ . }}{{ end }} is rejected by the provider behind it",
              """Our key for the gateway is good; the provider behind it rejects the key that is stored in the gateway. In the
              dashboard: Connections, the failing connection, Edit, enter the new provider key, Test.""", "1m"),
        alert("LangmartBilling", in_a_row("billing", 2, "job, instance, provider, fault"), "critical", None,
              "{{ $labels.provider }}: credit, quota or spending limit is used up",
              """Waiting does not heal it: add credit, raise the limit, or settle the bill. {{ if eq $labels.fault "provider" }}It is
              the account behind the key that is stored in the gateway.{{ else }}It is the account of the key that the prober
              sends.{{ end }}""", "1m"),
        alert("LangmartProbeRefused", 'max by (job, instance, probe, provider, model, reason) (\n'
              '  langmart_probe_failed_runs_in_a_row{check!="status",'
              'reason=~"permission|model_not_found|invalid_request|no_content"}\n) >= 3', "warning", "caller",
              PROBE + " is refused: {{ $labels.reason }}",
              """The service works, this probe does not: its key may not do this (permission), the model is unknown or retired
              (model_not_found), the request is wrong (invalid_request), or max_tokens leaves nothing to see (no_content).
              Correct the probe.""", "5m"),
        alert("LangmartRateLimited", in_a_row("rate_limited", 3, "job, instance, provider, fault"), "warning", None,
              "{{ $labels.provider }} limits our rate",
              """Three runs in a row got 429 or its like. {{ with printf
              "max(langmart_probe_backoff_until_timestamp_seconds{instance='%s',provider='%s'}) - time() > 0" $labels.instance
              $labels.provider | query }}We wait for another {{ . | first | value | humanizeDuration }}. {{ end }}Send fewer
              requests, spread them over providers in a pool, or raise the tier.""", "5m"),
        alert("LangmartRateLimitedForLong", """
max by (job, instance, provider, fault) (
  langmart_probe_backoff_until_timestamp_seconds
  - on (job, instance, probe) langmart_probe_last_run_timestamp_seconds
  + on (job, instance, probe) group_right () 0 * langmart_probe_failed_runs_in_a_row{reason="rate_limited"}
) >
900 # seconds""", "warning", None, "{{ $labels.provider }} lets us wait for {{ $value | humanizeDuration }}",
              """The service asks for waits of more than a quarter of an hour, as it does when the limit of a day is used
              up. Its probes are blind meanwhile. Use another provider, or raise the tier.""", "2m"),
        alert("LangmartRateLimitHeadroomLow", """
min by (job, instance, provider, model, resource) (
  avg_over_time(langmart_probe:ratelimit_headroom:ratio[15m])
  # One reading is shown until the next run.
  and changes(langmart_probe:ratelimit_low_reading:timestamp_seconds[3h]) > 0
) < 0.1""", "warning", "caller",
              "{{ $labels.provider }}: {{ $value | humanizePercentage }} of the {{ $labels.resource }} limit is left",
              """Less than a tenth of the limit was left on average over a quarter of an hour, by more than one reading: 429s
              come next. Find what else uses the key, spread the load, or raise the tier.""", "10m"),
        alert("LangmartBalanceLow", """
min by (job, instance, provider) (
  langmart_probe_balance_usd < on () group_left () langmart:balance_low:usd
  or
  langmart_probe_balance_usd < 2 * langmart_probe_balance_minimum_usd
)""", "warning", "caller", '{{ $labels.provider }}: {{ $value | printf "%.2f" }} USD are left',
              """The account is near the point at which the service refuses. Add credit. The bound is the recorded
              langmart:balance_low:usd.""", "10m"),
        alert("LangmartBudgetUsedUp", """
max by (job, instance) (langmart_budget_spent_usd >= langmart_budget_limit_usd)
or
max by (job, instance) (langmart_budget_spent_tokens >= langmart_budget_limit_tokens)
or
(
  # What is left is too little for a run. Not for longer than an hour: yesterday's skips say nothing of today.
  sum by (job, instance) (increase(langmart_probe_skipped_runs_total{cause="budget"}[1h])) > 0
  and on (job, instance) (
    langmart_budget_spent_usd > 0.5 * langmart_budget_limit_usd
    or
    langmart_budget_spent_tokens > 0.5 * langmart_budget_limit_tokens
  )
)""", "warning", "caller",
              "{{ $labels.instance }}: the probes' budget of the day is used up",
              """Chat and stream probes stand still until midnight UTC. Raise [budget], lengthen their intervals, or lower
              max_tokens; langmart_probe_estimated_cost_usd_total says which of them spends it."""),
    ]


def service_alerts():
    return [
        alert("LangmartProbeDown", f"""
(
  langmart_probe_last_run_fault{{check!="status",{DOWN}}} == 1
  and on (job, instance, probe) langmart_probe_down_runs_in_a_row >= 3
  and on (job, instance, probe)
  langmart_probe_down_runs_in_a_row * langmart_probe_interval_seconds >=
  120 # seconds
)
unless {OFFLINE_NOW}
unless on (job, instance, probe) {RAN_OFFLINE}""", "critical", None,
              PROBE + " is down by the fault of the {{ $labels.fault }}",
              """Three runs in a row failed, the last {{ if eq $labels.fault "network" }}on the way there: DNS, firewall, proxy or
              TLS{{ else if eq $labels.fault "gateway" }}by the gateway, LangMart or OpenRouter: see its status page{{ else }}by
              the LLM provider: see its status page{{ end }}. Look at the reason in the prober's page or the drill-down, run
              `langmart-prober doctor {{ $labels.provider }}`, and turn to an alternative meanwhile."""),
        service_alert("LangmartServiceUnavailable", "unavailable", "answers 503",
                      "Maintenance, overload, or no gateway is online.",
                      "Look at the status page; retry with growing pauses (5, 10, 15 s); use fallback connections."),
        service_alert("LangmartGatewayTimeout", "gateway_timeout", "answers 504",
                      "The answer took longer than the gateway waits: large requests, slow models, or an overloaded provider.",
                      "Make requests smaller, stream, or use a faster model; set the client's timeout above the gateway's 60 s."),
        service_alert("LangmartOverloaded", "overloaded", "is overloaded (529 or its like)",
                      "The service has more to do than it can.",
                      "Wait as it asks; turn to another model or provider; look at the status page."),
        verdict("LangmartGatewayFault", "gateway_fault", "gateway",
                "{{ $labels.comparison }}: the gateway fails where the direct way works",
                """Of the pairs of the last half hour (three hours, where they are rarer) at least three, and a quarter, failed
                through the gateway by its own fault while the provider answered directly. Call the provider directly meanwhile;
                open a ticket with `langmart-prober report`."""),
        verdict("LangmartProviderFault", "provider_fault", "provider",
                "{{ $labels.comparison }}: the provider fails, not the gateway",
                """Of the pairs of the last half hour (three hours, where they are rarer) at least three, and a quarter, failed by
                the provider's fault: by both ways, or behind the gateway alone, as its error says. Look at the provider's status
                page and use another provider; where the direct way works, at the key and the account that are stored in the
                gateway."""),
        alert("LangmartSlowFirstToken", """
(
  max without (quantile) (langmart_probe:time_to_first_token_seconds:quantile1h{quantile="0.5"})
  >
  0.5 + 2 * histogram_quantile(
    0.5, avg_over_time(langmart_probe:time_to_first_token_seconds_bucket:rate30m[1d:30m] offset 1h)
  )
)
and on (job, instance, probe) increase(langmart_probe_time_to_first_token_seconds_count[1h]) >= 4
and on (job, instance, probe)
sum_over_time(langmart_probe:time_to_first_token_seconds_bucket:rate30m{le="+Inf"}[1d:30m] offset 1h) >
20 / 1800 # seconds""", "warning", "service", PROBE + ": the first token takes {{ $value | humanizeDuration }}",
              """Half of the streams of the last hour waited longer than twice the median of the day before, and half a second.
              Compare processing with connect and tls in the drill-down, and the gateway with the direct way.""", "10m"),
        # The one that holds the other back is told of first.
        certificate("LangmartCertificateExpiringSoon", 7, "critical"),
        certificate("LangmartCertificateEndsIn21Days", 21, "warning"),
        alert("LangmartStatusPageIncident", """
max by (job, instance, provider, indicator) (
  langmart_probe_status_page_indicator{indicator=~"major|critical"}
) == 1
or
max by (job, instance, provider, component, status) (
  langmart_probe_status_page_component{status=~"degraded_performance|partial_outage|major_outage"}
) == 1""", "info", "provider", "{{ $labels.provider }}'s status page announces an incident",
              """It says {{ $labels.indicator }}{{ with $labels.component }}{{ . }}: {{ $labels.status }}{{ end }}. Read it
              before you look for a cause of your own.""", "5m"),
        alert("LangmartStatusPageUnreadable", """
max by (job, instance, provider) (langmart_probe_failed_runs_in_a_row{check="status"}) >= 3
unless on (job, instance) langmart_prober_offline == 1""", "info", "caller",
              "{{ $labels.provider }}'s status page cannot be read",
              "What it says is unknown, so no alert will tell of its incidents. Check status_url and the way there.", "30m"),
        alert("LangmartPoolDegraded", f"""
min by (job, instance, pool) (langmart_pool_available_ratio) < 1
unless
min by (job, instance, pool) (langmart_pool_available_ratio) == 0
unless
max by (job, instance, pool) {POOL_FAILED} < 3""", "warning", "service",
              "{{ $labels.pool }}: {{ $value | humanizePercentage }} of the pool is available",
              """Members of the pool have failed for twenty minutes, and three runs in a row; the rest carries the load. The
              members' own alerts say why.""", "20m"),
        alert("LangmartPoolDown", f"""
min by (job, instance, pool) (langmart_pool_available_ratio) == 0
unless
min by (job, instance, pool) {POOL_FAILED} < 3""", "critical",
              "service", "{{ $labels.pool }}: no member of the pool is available",
              """Three runs in a row of every member have failed, or one, where the service asked for a longer wait. The members'
              own alerts say why; use a provider that is not in the pool meanwhile.""", "2m"),
    ]


def slo_alerts():
    return [
        burn("LangmartErrorBudgetBurnFast", 14.4, "1h", "5m", 4.5, "critical", "14 times too fast"),
        burn("LangmartErrorBudgetBurn", 6, "6h", "30m", 4.5, "critical", "6 times too fast"),
        burn("LangmartErrorBudgetBurnSlow", 1, "3d", "6h", 9.5, "warning", "too fast"),
    ]


def prober_alerts():
    return [
        alert("LangmartProberDown", """
up == 0
and on (job, instance) (
  last_over_time(langmart_prober_build_info[1d]) or on (job, instance) up{job=~".*langmart.*"}
)""", "critical", "prober", "The prober {{ $labels.instance }} cannot be scraped",
              """What it would see is unknown. `systemctl status langmart-prober`; exit status 78 is a bad configuration. Check
              listener, TLS and authentication from Prometheus' side.""", "3m"),
        alert("LangmartProberAbsent", "absent(langmart_prober_build_info)", "critical", "prober",
              "No prober is scraped at all", """Either none runs, or Prometheus does not know it: check the scrape
              configuration and its service discovery.""", "10m"),
        alert("LangmartProbeStuck", """
timestamp(langmart_probe_next_run_timestamp_seconds) - langmart_probe_next_run_timestamp_seconds
> langmart_probe_timeout_seconds +
60 # seconds""", "critical", "prober", PROBE + " has not run when it should have",
              """Its next run is overdue by {{ $value | humanizeDuration }}: the scheduler hangs. Look at /-/healthy and at the
              log; restart the prober, and keep the log for a report.""", "1m"),
        alert("LangmartProberScheduleLagHigh", """
histogram_quantile(0.99, sum by (job, instance, le) (rate(langmart_prober_schedule_lag_seconds_bucket[10m]))) > 1
and
sum by (job, instance) (increase(langmart_prober_schedule_lag_seconds_count[10m])) >= 20""", "warning", "prober",
              "{{ $labels.instance }}: runs start {{ $value | humanizeDuration }} late",
              """The machine is busy, or max_concurrent, max_concurrent_per_provider or pacing hold runs back. Latencies may be
              measured too long.""", "10m"),
        alert("LangmartProberClockSkew", """
abs(quantile by (job, instance) (0.5, langmart_probe_clock_offset_seconds)) > 5""", "warning", "prober",
              "{{ $labels.instance }}: the clock is off by {{ $value | humanizeDuration }}",
              """Half of the services' Date headers say so. Certificates may look invalid, and waits end at the wrong time.
              `timedatectl`, `chronyc tracking`.""", "10m"),
        alert("LangmartProberSkipsRuns", f"""
(
  {skips("30m")} >= 5
  and
  {skips("30m")} > on (job, instance, provider) group_left ()
  0.1 * {RUNS}[30m]))
)
or
(
  # Probes that are seldom due.
  {skips("6h")} >= 5
  and
  {skips("6h")} > on (job, instance, provider) group_left ()
  0.5 * {RUNS}[6h]))
  and
  {skips("1h")} > 0
)""", "warning", "prober",
              "{{ $labels.instance }} skips runs of {{ $labels.provider }}: {{ $labels.cause }}",
              """overrun: runs take longer than their interval; concurrency: raise max_concurrent or
              max_concurrent_per_provider; pacing: requests_per_minute is below what the probes ask for.""", "10m"),
        alert("LangmartProberReloadFailed", "langmart_prober_config_last_reload_successful == 0", "warning", "prober",
              "{{ $labels.instance }}: the configuration could not be reloaded",
              "The old one is in use. `langmart-prober check-config` says every problem of the file.", "5m"),
        alert("LangmartProberLogWritesFailing", """
sum by (job, instance, file) (
  increase(langmart_prober_log_write_errors_total[15m]) + increase(langmart_prober_log_lines_dropped_total[15m])
) > 0
or
max by (job, instance, file) (langmart_prober_log_write_in_progress_seconds) > 15""", "warning", "prober",
              "{{ $labels.instance }}: {{ $labels.file }} is not written",
              """The disk is full, or does not respond (langmart_prober_log_write_in_progress_seconds grows), the directory is
              gone or not writable, or max_file_size is reached."""),
        alert("LangmartProberOffline", "langmart_prober_offline == 1", "critical", "prober",
              "{{ $labels.instance }} is cut off from the network",
              """The last run of every provider failed on the network: it is the prober's way out, not the services. Check
              DNS, proxy, firewall and routes of its machine. Alerts on services from here are held back."""),
        alert("LangmartProberFailing", """
sum by (job, instance) (increase(langmart_probe_failures_total{fault="prober"}[15m])) >= 3""", "warning", "prober",
              "{{ $labels.instance }}: runs fail in the prober itself",
              "It is out of descriptors, memory or local ports. Compare process_open_fds with process_max_fds.", "2m"),
        alert("LangmartProberTaskRestarts", """
sum by (job, instance, task) (increase(langmart_prober_task_restarts_total[15m])) > 0""", "warning", "prober",
              "{{ $labels.instance }}: {{ $labels.task }} failed and was started again",
              "It is a bug: the log has what failed. Keep it for a report."),
        alert("LangmartProberRestarts", """
changes(process_start_time_seconds[1h]) >= 3
and on (job, instance) langmart_prober_build_info""", "warning", "prober",
              "{{ $labels.instance }} has been started {{ $value }} times in an hour",
              "`journalctl -u langmart-prober` says why it ended: watchdog, memory, or somebody."),
    ]


def alerts():
    """Groups of alerting rules: name, rules."""
    return [
        ("langmart-prober-callers", caller_alerts()),
        ("langmart-prober-services", service_alerts()),
        ("langmart-prober-slos", slo_alerts()),
        ("langmart-prober-probers", prober_alerts()),
    ]
