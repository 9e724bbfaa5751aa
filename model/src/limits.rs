//! Every limit of the system, by name and with its unit. What goes over one gets an error that names it.

use std::time::Duration;

/// Bytes of an argv with its terminators, of a shell line, and of one argument.
pub const ARGV_BYTES: usize = 128 * 1024;
/// Arguments of one command.
pub const ARGV_COUNT: usize = 1024;
/// Bytes of one script.
pub const SCRIPT_BYTES: usize = 1024 * 1024;
/// Bytes of all names and values of a run's environment.
pub const ENVIRONMENT_BYTES: usize = 128 * 1024;
/// Variables of a run's environment.
pub const ENVIRONMENT_COUNT: usize = 512;
/// Bytes of a path (working directory, interpreter) or user name.
pub const PATH_BYTES: usize = 4096;
/// Characters of a name: agent, label key, label value, token description.
pub const NAME_CHARS: usize = 128;
/// Characters of the name of a person, role, group, service account or organization.
pub const SLUG_CHARS: usize = 64;
/// Labels of one agent.
pub const LABELS: usize = 64;
/// Facts of one agent, bytes of one fact's value.
pub const FACTS: usize = 64;
pub const FACT_BYTES: usize = 1024;
/// Bytes of a selector's text.
pub const SELECTOR_BYTES: usize = 4096;
/// Depth of a selector's brackets and `not`s.
pub const SELECTOR_DEPTH: usize = 32;
/// Patterns of one selector: below the 32 that a Postgres backend keeps compiled, so that none is compiled per row.
pub const SELECTOR_PATTERNS: usize = 16;
/// Bytes of one pattern, and single characters it stands for once its repetitions are written out: the time that
/// Postgres takes to compile it grows with the cube of these (below 0.1 s at the limit, above 1 s at 1000).
pub const PATTERN_BYTES: usize = 256;
pub const PATTERN_LENGTH: usize = 256;
/// Targets that one request may name, and targets of one execution.
pub const NAMED_TARGETS: usize = 1000;
pub const TARGETS: usize = 20_000;

/// Groups of equal output that one answer has at most.
pub const OUTPUT_GROUPS: i64 = 1000;

/// Seconds that a run may take: smallest, default, largest (30 days).
pub const TIMEOUT_SECONDS: std::ops::RangeInclusive<i64> = 1..=30 * 24 * 3600;
pub const DEFAULT_TIMEOUT_SECONDS: i64 = 3600;
/// Seconds that a run may wait for its host before it expires.
pub const START_WITHIN_SECONDS: std::ops::RangeInclusive<i64> = 1..=30 * 24 * 3600;
pub const DEFAULT_START_WITHIN_SECONDS: i64 = 300;
/// Tries of one run, the first included.
pub const RUN_TRIES: std::ops::RangeInclusive<i64> = 1..=10;
/// Seconds between two tries: the first pause and the longest, each within these bounds (a day).
pub const RETRY_BACKOFF_SECONDS: std::ops::RangeInclusive<i64> = 1..=24 * 3600;
pub const DEFAULT_RETRY_BACKOFF_SECONDS: i64 = 5;
pub const DEFAULT_MAX_RETRY_BACKOFF_SECONDS: i64 = 300;
/// Priorities of executions: of what waits for a host, the highest comes first.
pub const PRIORITY: std::ops::RangeInclusive<i64> = -100..=100;
/// How long processes that were asked to end may take before they are killed.
pub const KILL_GRACE: Duration = Duration::from_secs(5);

/// How long killing may take until what is left counts as unkillable.
pub const KILL_WITHIN: Duration = Duration::from_secs(60);

/// What a run may take of its host: each with its smallest and its largest value.
pub const RUN_MEMORY_BYTES: std::ops::RangeInclusive<u64> = 4 * 1024 * 1024..=1 << 50;
pub const RUN_PIDS: std::ops::RangeInclusive<u64> = 1..=1_000_000;
pub const RUN_CPU_PERCENT: std::ops::RangeInclusive<u64> = 1..=100 * 1024;
pub const RUN_IO_BYTES_PER_SECOND: std::ops::RangeInclusive<u64> = 4096..=1 << 50;
pub const RUN_OPEN_FILES: std::ops::RangeInclusive<u64> = 16..=1_000_000;
pub const RUN_FILE_BYTES: std::ops::RangeInclusive<u64> = 1..=1 << 50;
/// Processes and threads of a run that names no limit, where the host can count them and a profile confines it.
pub const DEFAULT_RUN_PIDS: u64 = 4096;
/// Files that a process of a run may have open that names no limit: what programs are used to.
pub const DEFAULT_RUN_OPEN_FILES: u64 = 1024;
/// Users that exist for one run only: the first and the last number, those that Linux distributions leave to such users.
pub const DYNAMIC_UIDS: (u32, u32) = (61_184, 65_519);
/// Folders that a run may name to read, and to write.
pub const RUN_FOLDERS: usize = 32;
/// Bytes of an image's name.
pub const IMAGE_BYTES: usize = 512;

/// Bytes of output that are kept of one run; what is beyond is counted and hashed, not stored.
pub const RUN_OUTPUT_BYTES: u64 = 256 * 1024 * 1024;
/// Bytes of one output chunk before compression.
pub const CHUNK_BYTES: usize = 64 * 1024;
/// Chunks of one batch on the output stream, and their bytes in all.
pub const BATCH_CHUNKS: usize = 64;
pub const BATCH_BYTES: usize = 512 * 1024;
/// Output of one chunk spans at most this time, so that its time stamp holds for all of its lines.
pub const CHUNK_SPAN: Duration = Duration::from_millis(50);
/// Bytes of unshipped output, of all of a host's runs, above which it takes no new ones.
pub const HOST_SPOOL_BYTES: u64 = 2 * 1024 * 1024 * 1024;
/// Attempts that the controller has yet to take over whole, above which a host takes no new ones.
pub const HOST_UNSETTLED: usize = 4096;
/// How long a process waits for a full disk before its output gets a gap.
pub const BLOCK_FOR: Duration = Duration::from_secs(60);

/// Runs at a time on one host: default, largest.
pub const DEFAULT_SLOTS: u32 = 16;
pub const MAX_SLOTS: u32 = 1024;

/// Bytes of one gRPC message.
pub const GRPC_MESSAGE_BYTES: usize = 2 * 1024 * 1024;
/// HTTP/2 streams of one agent's connection.
pub const GRPC_STREAMS: u32 = 16;
/// Frames that wait to be written to one agent.
pub const OUTBOUND_FRAMES: usize = 64;
/// Frames a second that one agent may send, and how many at once.
pub const AGENT_FRAMES_PER_SECOND: u32 = 2000;
/// Enrollments a second from one address, and how many at once.
pub const ENROLLMENTS_PER_SECOND: u32 = 20;
/// API requests a second of one actor, and how many at once.
pub const API_REQUESTS_PER_SECOND: u32 = 10_000;
/// API requests a second from one address that bring no valid credential.
pub const API_DENIALS_PER_SECOND: u32 = 50;
/// Tries to enter a minute from one address, and how many at once.
pub const LOGINS_PER_MINUTE: u32 = 20;
/// Failures to enter within `LOGIN_LOCK` that lock a name for as long, whether there is such a person or not.
pub const LOGIN_FAILURES: i32 = 5;
pub const LOGIN_LOCK: Duration = Duration::from_secs(15 * 60);
/// Passwords that are hashed at a time; each takes 19 MiB.
pub const PASSWORD_HASHES: usize = 2;
/// Characters of a password: fewest, and most bytes.
pub const PASSWORD_CHARS: usize = 12;
pub const PASSWORD_BYTES: usize = 1024;
/// Life of an access token, of a session that is not used, and of one that is.
pub const ACCESS_TOKEN_LIFE: Duration = Duration::from_secs(600);
pub const SESSION_IDLE: Duration = Duration::from_secs(7 * 24 * 3600);
pub const SESSION_LIFE: Duration = Duration::from_secs(30 * 24 * 3600);
/// Life of a session that an OpenID provider opened: after this it is asked again whether the person still has it.
pub const OIDC_SESSION_LIFE: Duration = Duration::from_secs(12 * 3600);
/// How long somebody may take at the provider, and a program to fetch the session that it is given then.
pub const OIDC_LOGIN_WITHIN: Duration = Duration::from_secs(600);
pub const OIDC_CODE_LIFE: Duration = Duration::from_secs(60);
/// Refusals for want of a right that one credential gets in a minute, and how many are remembered so that equal ones are one
/// entry of the audit.
pub const DENIALS_PER_MINUTE: u32 = 600;
pub const DENIALS_REMEMBERED: usize = 10_000;
/// Proxies, or networks of them, that may say whence a request is.
pub const TRUSTED_PROXIES: usize = 64;
/// Providers, groups of one person that are looked at, and bytes of one answer of a provider.
pub const OIDC_PROVIDERS: usize = 16;
pub const OIDC_GROUPS: usize = 2000;
pub const OIDC_ANSWER_BYTES: usize = 1024 * 1024;
/// How long a refresh token that was just replaced is answered once more, to the same address: an answer may be lost.
pub const REFRESH_GRACE: Duration = Duration::from_secs(10);
/// How long what somebody is granted is believed before it is read again.
pub const ACCESS_BELIEVED: Duration = Duration::from_secs(1);
/// Life of an API token: smallest, default, largest.
pub const API_TOKEN_TTL_SECONDS: std::ops::RangeInclusive<i64> = 60..=365 * 24 * 3600;
pub const DEFAULT_API_TOKEN_TTL_SECONDS: i64 = 90 * 24 * 3600;
/// Life of an invitation and of a token for a new password: smallest, default, largest.
pub const ONE_TIME_TOKEN_TTL_SECONDS: std::ops::RangeInclusive<i64> = 60..=7 * 24 * 3600;
pub const DEFAULT_INVITATION_TTL_SECONDS: i64 = 3 * 24 * 3600;
pub const DEFAULT_RESET_TTL_SECONDS: i64 = 3600;
/// Recovery codes of a person.
pub const RECOVERY_CODES: usize = 10;
/// Tokens of one owner, bindings, roles and groups of one organization.
pub const API_TOKENS: i64 = 100;
pub const ROLE_BINDINGS: i64 = 10_000;
pub const ROLES: i64 = 200;
pub const GROUPS: i64 = 1000;
/// Streams (output or events that are followed) of one principal, and of all of them at one controller.
pub const STREAMS_PER_PRINCIPAL: usize = 100;
pub const STREAMS: usize = 2000;
/// Exports of the audit that one controller gives out at once: each reads all of it.
pub const EXPORTS: usize = 2;
/// How often the credential of an open stream is looked at again.
pub const STREAM_RECHECK: Duration = Duration::from_secs(30);
/// Bytes of an HTTP request's body.
pub const HTTP_BODY_BYTES: usize = 4 * 1024 * 1024;
/// Bytes of an HTTP request's path with its query.
pub const HTTP_URI_BYTES: usize = 8 * 1024;
/// Header lines of an HTTP request, and the bytes of their names and values in all.
pub const HTTP_HEADERS: usize = 64;
pub const HTTP_HEADER_BYTES: usize = 32 * 1024;
/// Open connections at the people's door, of one address and in all.
pub const HTTP_CONNECTIONS_PER_ADDRESS: usize = 1000;
pub const HTTP_CONNECTIONS: usize = 8000;
/// Origins of other sites that a browser may ask from, and names of the certificate at the people's door.
pub const CORS_ORIGINS: usize = 32;
pub const DOOR_NAMES: usize = 32;
/// Life of a certificate that the installation's own CA issues for the people's door; it is replaced at half of it.
pub const DOOR_CERTIFICATE_LIFE: Duration = Duration::from_secs(30 * 24 * 3600);
/// Of an event that people's programs add: characters of its kind, bytes of its object, bytes of its data as JSON.
pub const EVENT_KIND_CHARS: usize = 128;
pub const EVENT_OBJECT_BYTES: usize = 512;
pub const EVENT_DATA_BYTES: usize = 16 * 1024;
/// Buckets that one answer of the statistics may have, and the longest time that they may span.
pub const STATISTICS_BUCKETS: i64 = 1000;
pub const STATISTICS_SPAN: Duration = Duration::from_secs(366 * 24 * 3600);
/// Rows of one report, of who may and of who did.
pub const REPORT_ROWS: usize = 200_000;
/// Items of one page: default, largest.
pub const DEFAULT_PAGE: i64 = 100;
pub const MAX_PAGE: i64 = 1000;
/// Bytes of an `Idempotency-Key`.
pub const IDEMPOTENCY_KEY_BYTES: usize = 128;

/// Bytes of a certificate signing request, DER.
pub const CSR_BYTES: usize = 8 * 1024;
/// Life of an enroll token: smallest, default, largest.
pub const ENROLL_TOKEN_TTL_SECONDS: std::ops::RangeInclusive<i64> = 10..=24 * 3600;
pub const DEFAULT_ENROLL_TOKEN_TTL_SECONDS: i64 = 15 * 60;
/// Uses of an enroll token.
pub const ENROLL_TOKEN_USES: std::ops::RangeInclusive<i32> = 1..=10_000;
/// Life of a join token, in seconds.
pub const JOIN_TOKEN_TTL_SECONDS: i64 = 15 * 60;
/// Life of a dispatch key's certificate; the key is replaced at half of it.
pub const DISPATCH_KEY_LIFE: Duration = Duration::from_secs(30 * 24 * 3600);
/// Controllers that one agent is told of.
pub const ANNOUNCED_CONTROLLERS: usize = 16;
/// Life of an agent's certificate.
pub const AGENT_CERTIFICATE_LIFE: Duration = Duration::from_secs(24 * 3600);
/// How long after its expiry a certificate may still ask for its successor.
pub const RENEW_AFTER_EXPIRY: Duration = Duration::from_secs(90 * 24 * 3600);
/// How far two clocks may be apart.
pub const CLOCK_SKEW: Duration = Duration::from_secs(60);
/// How long after it was signed an order may start.
pub const START_WINDOW: Duration = Duration::from_secs(120);
/// How long an agent may be away before its running attempts count as lost.
pub const LOST_AFTER: Duration = Duration::from_secs(300);
/// The longest pause of an agent between two tries to reach a controller.
pub const RECONNECT_PAUSE: Duration = Duration::from_secs(8);
/// How long a controller that is gone keeps its sessions.
pub const LEASE: Duration = Duration::from_secs(20);
/// How long a follower waits for output that a host has announced and that does not come.
pub const OUTPUT_PATIENCE: Duration = Duration::from_secs(300);
/// Heartbeats and host metrics: how often, and how long silence may last before a session ends.
pub const HEARTBEAT_EVERY: Duration = Duration::from_secs(10);
pub const SESSION_SILENCE: Duration = Duration::from_secs(30);
pub const METRICS_EVERY: Duration = Duration::from_secs(15);

/// Bytes of a job's document, of a description, and of a comment on a version.
pub const DOCUMENT_BYTES: usize = 512 * 1024;
pub const DESCRIPTION_BYTES: usize = 4096;
pub const COMMENT_BYTES: usize = 1024;
/// Scripts of one organization, and versions of one script.
pub const SCRIPTS: i64 = 10_000;
pub const SCRIPT_VERSIONS: i64 = 10_000;
/// Bytes of the saved scripts of one started job, each as often as a step uses it: all of them are part of its plan.
pub const PLAN_SCRIPT_BYTES: usize = 4 * 1024 * 1024;
/// Scripts that one controller has checked by their interpreters at a time, how long one may take, and bytes of what one says.
pub const SCRIPT_CHECKS: usize = 2;
pub const SCRIPT_CHECK_WITHIN: Duration = Duration::from_secs(10);
pub const SCRIPT_CHECK_OUTPUT_BYTES: usize = 16 * 1024;
/// Target groups of one organization.
pub const TARGET_GROUPS: i64 = 1000;
/// Calendars of one organization, and those that all share.
pub const CALENDARS: i64 = 500;
/// Entries of one calendar, and how far ahead it is looked for the next change of its state (ten years: a 29 February
/// may be eight away).
pub const CALENDAR_ENTRIES: usize = 5000;
pub const CALENDAR_LOOK_AHEAD: Duration = Duration::from_secs(3660 * 24 * 3600);
/// Bytes of an iCalendar text, and components (events and the like) in it.
pub const ICAL_BYTES: usize = 2 * 1024 * 1024;
pub const ICAL_EVENTS: usize = 5000;
/// Job templates of one organization.
pub const JOB_TEMPLATES: i64 = 1000;
/// Steps of one job, those of its rollback included.
pub const STEPS: usize = 200;
/// Runs of one execution: its steps on all of its hosts.
pub const RUNS: usize = 200_000;
/// Batches that a rollout names.
pub const BATCHES: usize = 100;
/// Outputs that a step promises.
pub const OUTPUTS: usize = 32;
/// Bytes of the outputs of a step.
pub const OUTPUTS_BYTES: usize = 16 * 1024;
/// Levels of lists and objects within an output.
pub const OUTPUTS_DEPTH: usize = 16;
/// People who have to approve a step.
pub const APPROVERS: std::ops::RangeInclusive<i64> = 1..=20;
/// Roles, or groups, that an approval names.
pub const APPROVAL_NAMES: usize = 20;
/// Seconds that an approval is waited for.
pub const APPROVAL_SECONDS: std::ops::RangeInclusive<i64> = 1..=30 * 24 * 3600;
pub const DEFAULT_APPROVAL_SECONDS: i64 = 24 * 3600;
/// Seconds that one try of an http step may take.
pub const STEP_HTTP_SECONDS: std::ops::RangeInclusive<i64> = 1..=300;
pub const DEFAULT_STEP_HTTP_SECONDS: i64 = 30;
/// Headers of an http step, and statuses that it expects.
pub const STEP_HTTP_HEADERS: usize = 50;
/// Bytes that an http step sends.
pub const STEP_HTTP_BODY_BYTES: usize = 64 * 1024;
/// Bytes of an answer that are told to later steps as its body; more are cut off.
pub const STEP_HTTP_TOLD_BYTES: usize = 8 * 1024;
/// Texts of one step of the controller's own that are filled in.
pub const STEP_TEXTS: usize = 100;
/// Bytes of an address.
pub const URL_BYTES: usize = 8 * 1024;
/// Bytes of what steps of the controller's own read of all hosts.
pub const GATHERED_BYTES: usize = 1024 * 1024;
/// Levels of jobs that start jobs, and jobs that one start brings with it.
pub const JOB_DEPTH: usize = 5;
pub const JOBS_OF_A_START: usize = 50;
/// Hosts of all these jobs together.
pub const HOSTS_OF_JOBS: usize = 50_000;
/// Seconds that the hosts of a canary are left alone before they are probed; well within the time in which all has to begin.
pub const SOAK_SECONDS: std::ops::RangeInclusive<i64> = 0..=14 * 24 * 3600;
/// Seconds that the controller waits in a step or between two batches (30 days at most).
pub const WAIT_SECONDS: std::ops::RangeInclusive<i64> = 0..=30 * 24 * 3600;
/// Jobs that one controller reviews for dangerous commands at a time.
pub const REVIEWS: usize = 2;
/// The largest number of a parameter of the type `number`, either way: up to it a double holds every whole number.
pub const PARAMETER_NUMBER: f64 = 9_007_199_254_740_992.0;
/// Jobs of one organization, and versions of one job.
pub const JOBS: i64 = 10_000;
pub const JOB_VERSIONS: i64 = 10_000;
/// Seconds within which all of a started job must have begun (30 days).
pub const PLAN_SECONDS: i64 = 30 * 24 * 3600;
/// Parameters of one job, characters of a parameter's name, choices of one, and values one depends on.
pub const PARAMETERS: usize = 64;
pub const PARAMETER_NAME_CHARS: usize = 64;
pub const PARAMETER_CHOICES: usize = 256;
/// Bytes of all values of an execution's parameters, as JSON: an environment holds them twice.
pub const PARAMETERS_BYTES: usize = 32 * 1024;
/// Bytes of the compiled pattern of a parameter.
pub const PARAMETER_PATTERN_BYTES: usize = 1024 * 1024;
/// Bytes of a template and of what it renders to; a script is the largest.
pub const TEMPLATE_BYTES: usize = SCRIPT_BYTES;
/// Tags of one template, branches (`elif`) of it, depth of its blocks, and bytes of one tag or condition: the engine
/// walks them recursively.
pub const TEMPLATE_TAGS: usize = 1000;
pub const TEMPLATE_BRANCHES: usize = 32;
pub const TEMPLATE_DEPTH: usize = 16;
pub const EXPRESSION_BYTES: usize = 512;
/// Instructions that one template or condition may take.
pub const TEMPLATE_FUEL: u64 = 100_000;
/// Numbers of one `range`.
pub const TEMPLATE_RANGE: i64 = 10_000;

/// Schedules of an organization.
pub const SCHEDULES: i64 = 200_000;
/// Calendars that one schedule names.
pub const CALENDARS_OF_A_SCHEDULE: usize = 20;
/// Seconds of a schedule's jitter.
pub const JITTER_SECONDS: std::ops::RangeInclusive<i64> = 0..=24 * 3600;
/// Seconds by which a firing may be late.
pub const MAX_LATENESS_SECONDS: std::ops::RangeInclusive<i64> = 1..=24 * 3600;
pub const DEFAULT_MAX_LATENESS_SECONDS: i64 = 60;
/// Seconds for which a late firing may be caught up.
pub const CATCH_UP_SECONDS: std::ops::RangeInclusive<i64> = 0..=30 * 24 * 3600;
pub const DEFAULT_CATCH_UP_SECONDS: i64 = 3600;
/// Executions that one schedule may start at once to catch up.
pub const CAUGHT_UP_FIRINGS: usize = 1000;
/// Occurrences of one schedule that wait for their turn.
pub const WAITING_OCCURRENCES: usize = 1000;
/// Executions in a row after which a schedule may be paused.
pub const FAILURES_IN_A_ROW: std::ops::RangeInclusive<i64> = 1..=1000;
/// Networks from which a webhook takes deliveries; characters of a header's name; bytes of a delivery, and of its name.
pub const WEBHOOK_NETWORKS: usize = 100;
pub const HEADER_NAME_CHARS: usize = 64;
pub const WEBHOOK_BODY_BYTES: usize = 1024 * 1024;
pub const DELIVERY_BYTES: usize = 256;
/// Deliveries that one webhook takes in a minute.
pub const DELIVERIES_PER_MINUTE: u32 = 600;
/// Schedules of an organization that wait for events: each event of their kind is shown to each of them.
pub const EVENT_SCHEDULES: i64 = 1000;
/// Schedules that start each other by events: so many executions in a chain.
pub const CHAINED_EXECUTIONS: i16 = 10;
/// Firings of one backfill, and executions of it at a time.
pub const BACKFILL_FIRINGS: usize = 1000;
pub const BACKFILL_AT_A_TIME: std::ops::RangeInclusive<i64> = 1..=50;
/// Firings of a preview.
pub const PREVIEWED_FIRINGS: std::ops::RangeInclusive<i64> = 1..=1000;
pub const DEFAULT_PREVIEWED_FIRINGS: i64 = 10;

/// Bytes of a cron.
pub const CRON_BYTES: usize = 512;
/// Years within which a cron has a match, or has none ever: the longest wait is for a 29 February on a given weekday,
/// which takes 40 years across a century that is no leap year.
pub const CRON_YEARS: i16 = 48;
/// Bytes of a recurrence rule, the largest number of its INTERVAL and of its COUNT.
pub const RRULE_BYTES: usize = 1024;
pub const RRULE_INTERVAL: i64 = 10_000;
pub const RRULE_COUNT: i64 = 100_000;
/// Years within which a recurrence rule has a match, or is over: the calendar repeats itself by so many.
pub const RRULE_YEARS: usize = 400;
/// Seconds between two firings of an interval (366 days at most).
pub const EVERY_SECONDS: std::ops::RangeInclusive<i64> = 1..=366 * 24 * 3600;
/// Changes of a zone's offset near which a schedule's matches may all be skipped before it counts as over.
pub const OFFSETS_WALKED: usize = 1000;

/// Hours that a forecast looks ahead, and what it reads and tells.
pub const FORECAST_HOURS: std::ops::RangeInclusive<i64> = 1..=31 * 24;
pub const DEFAULT_FORECAST_HOURS: i64 = 24;
pub const FORECAST_SCHEDULES: usize = 20_000;
pub const FORECAST_FIRINGS: usize = 1000;
