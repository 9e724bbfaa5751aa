//! `opsctl logs`: the output of an execution, as lines of its targets, as the bytes of one, or once for all that wrote the same.

mod groups;

use anyhow::Result;
use model::api::{
    execution::Run,
    output::{OutputPiece, Stream},
};

use crate::{
    args::LogsArgs,
    client::Client,
    clock,
    exit::{Exit, NoMatch, Usage},
    follow,
    labels::Labels,
    output::{self, Content, Tail, lines::Lines},
    raw::Shown,
};

/// # Errors
/// As the requests, when there is no such target, and when stdout is closed or full.
pub(crate) async fn run(client: &Client, args: LogsArgs) -> Result<Exit> {
    if args.group {
        return groups::run(client, &args).await;
    }
    let query = query(&args)?;
    let execution = client.execution(args.execution).await?;
    let labels = Labels::of(client, &execution).await?;
    if let Some(step) = &args.step
        && !labels.has_step(step)
    {
        return Err(NoMatch(format!("the execution {} has no step '{step}'", args.execution)).into());
    }
    if args.raw {
        raw(client, &args, query, &labels).await
    } else {
        lines(client, &args, query, &labels).await
    }
}

/// Writes the lines of all targets, or of one.
async fn lines(client: &Client, args: &LogsArgs, query: Query, labels: &Labels) -> Result<Exit> {
    let mut lines = Lines::new(output::wants_colour(Stream::Stdout), output::wants_colour(Stream::Stderr));
    if !labels.is_empty() {
        if let Some(target) = &args.target
            && labels.of_host(Some(target)).next().is_none()
        {
            return Err(NoMatch(format!("the execution {} has no target '{target}'", args.execution)).into());
        }
        labels.of_host(args.target.as_deref()).for_each(|label| lines.expect(label));
    } else if let Some(target) = &args.target {
        lines.expect(&find_run(client, args, target).await?.target);
    } else if let Some(runs) = client.runs(args.execution, None).next().await? {
        runs.iter().for_each(|run| lines.expect(&run.target));
    }
    let mut sink = Sink::new(args);
    read(client, args, query, labels, &mut sink, |piece, content| {
        labels.put(piece);
        (piece.stream, lines.piece(piece, &content))
    })
    .await?;
    for (stream, bytes) in lines.finish() {
        sink.write(stream, &bytes)?;
    }
    sink.release()?;
    Ok(Exit::Succeeded)
}

/// Writes the bytes of one run as they are, and checks them where all of them were asked for and there is something
/// to check against.
async fn raw(client: &Client, args: &LogsArgs, query: Query, labels: &Labels) -> Result<Exit> {
    let run = match &args.target {
        Some(target) => find_run(client, args, target).await?,
        None => only_run(client, args).await?,
    };
    let only = args.stream.map(Stream::from);
    let mut shown = Shown::default();
    let mut sink = Sink::new(args);
    let ended = read(client, args, query, labels, &mut sink, |piece, content| {
        if piece.run_id != run.id {
            return (piece.stream, Vec::new());
        }
        shown.take(piece, &content);
        let bytes = match content {
            Content::Bytes(bytes) => bytes,
            Content::Gap(_) => Vec::new(),
        };
        (only.map_or(piece.stream, |_| Stream::Stdout), bytes)
    })
    .await?;
    sink.release()?;
    // Other runs of the execution may go on; this one had all of its output stored before we began to read.
    let ended = ended || (run.state.is_terminal() && run.output.complete == Some(true));
    if !ended || args.tail.is_some() || args.since.is_some() {
        return Ok(Exit::Succeeded);
    }
    let now = find_run(client, args, &run.target).await?;
    let complaints = match args.attempt.filter(|number| *number != now.attempt) {
        None => shown.complaints(now.attempt, &now.target, &now.output, only),
        Some(number) => {
            let attempts = client.attempts(args.execution, now.id).all().await?;
            let attempt = attempts.into_iter().find(|attempt| attempt.number == number);
            let attempt =
                attempt.ok_or_else(|| NoMatch(format!("the run of {} has no try {number}", now.target)))?;
            shown.complaints(number, &now.target, &attempt.output, only)
        }
    };
    complaints.iter().for_each(|complaint| output::note(complaint));
    Ok(if complaints.is_empty() { Exit::Succeeded } else { Exit::Failed })
}

type Query = Vec<(&'static str, String)>;

/// Where bytes go: held back while the last lines of what is stored are still looked for.
struct Sink {
    tail: Option<Tail>,
}

impl Sink {
    fn new(args: &LogsArgs) -> Self {
        Self { tail: args.tail.map(|lines| Tail::new(lines as usize)) }
    }

    fn write(&mut self, stream: Stream, bytes: &[u8]) -> Result<()> {
        match &mut self.tail {
            Some(tail) => {
                tail.push(stream, bytes);
                Ok(())
            }
            None => output::write(stream, bytes),
        }
    }

    /// Writes what was held back; from now on nothing is.
    fn release(&mut self) -> Result<()> {
        let lines = self.tail.take().into_iter().flat_map(Tail::into_lines);
        for (stream, line) in lines {
            output::write(stream, &line)?;
        }
        Ok(())
    }
}

fn query(args: &LogsArgs) -> Result<Query> {
    let mut query = Vec::new();
    query.extend(args.target.as_ref().map(|target| ("target", target.clone())));
    let attempt = args.attempt.map_or_else(|| "newest".to_owned(), |number| number.to_string());
    query.push(("attempt", attempt));
    query.extend(args.stream.map(|stream| ("stream", Stream::from(stream).as_str().to_owned())));
    if let Some(since) = args.since {
        query.push(("since", since.resolve(clock::now()).map_err(Usage)?.to_string()));
    }
    Ok(query)
}

/// Writes to `sink`, in the form that `form` gives it, what is stored, and if it is followed what comes until the end.
/// Tells whether it came to the end of an execution that has ended.
async fn read(
    client: &Client,
    args: &LogsArgs,
    query: Query,
    labels: &Labels,
    sink: &mut Sink,
    mut form: impl FnMut(&mut OutputPiece, Content) -> (Stream, Vec<u8>),
) -> Result<bool> {
    let mut take = |sink: &mut Sink, mut piece: OutputPiece| {
        if args.step.as_ref().is_some_and(|step| !labels.is_of(piece.run_id, step)) {
            return Ok(());
        }
        let content = Content::take(&mut piece)?;
        let (stream, bytes) = form(&mut piece, content);
        sink.write(stream, &bytes)
    };
    let mut after = None;
    if !args.follow || args.tail.is_some() {
        // The first of the lines may have begun in an earlier piece: with one more, all that are shown are whole.
        // Of one step nobody but us counts them: all is read, and the last are kept.
        let tail = args.tail.filter(|_| args.step.is_none());
        let tail = tail.map(|lines| ("tail", (u64::from(lines) + 1).to_string()));
        let mut first: Query = query.iter().cloned().chain(tail).collect();
        loop {
            let page = client.output(args.execution, &first, after).await?;
            let empty = page.items.is_empty();
            page.items.into_iter().try_for_each(|piece| take(sink, piece))?;
            after = Some(page.next_after);
            if page.end || (empty && !args.follow) {
                return Ok(page.end);
            }
            if empty {
                break;
            }
            // The tail was counted once; from here on the position decides.
            first.clone_from(&query);
        }
        sink.release()?;
    }
    follow::to_end(client, args.execution, query, after, |piece| take(sink, piece)).await?;
    Ok(true)
}

/// The run of a target; of a job the one of the step that is asked for, or the only one.
async fn find_run(client: &Client, args: &LogsArgs, target: &str) -> Result<Run> {
    let mut found = Vec::new();
    let mut pages = client.runs(args.execution, None);
    while let Some(runs) = pages.next().await? {
        found.extend(runs.into_iter().filter(|run| run.target == target && is_asked_for(run, args)));
        // Without steps a target has one run.
        if found.first().is_some_and(|run| run.step.is_none() || args.step.is_some() || !args.raw) {
            break;
        }
    }
    match found.len() {
        0 | 1 => found.pop().ok_or_else(|| {
            NoMatch(format!("the execution {} has no target '{target}'", args.execution)).into()
        }),
        _ if !args.raw => Ok(found.swap_remove(0)),
        _ => {
            Err(Usage("the job has several steps: say with --step whose bytes --raw is to write".into())
                .into())
        }
    }
}

fn is_asked_for(run: &Run, args: &LogsArgs) -> bool {
    args.step.is_none() || run.step_name == args.step
}

async fn only_run(client: &Client, args: &LogsArgs) -> Result<Run> {
    let mut pages = client.runs(args.execution, None);
    let mut found = Vec::new();
    while let Some(runs) = pages.next().await? {
        found.extend(runs.into_iter().filter(|run| is_asked_for(run, args)).take(2));
        if found.len() > 1 {
            let flag = if args.step.is_none() && found.iter().any(|run| run.step.is_some()) {
                "runs: say with --target and --step"
            } else {
                "targets: say with --target"
            };
            return Err(
                Usage(format!("the execution has several {flag} whose bytes --raw is to write")).into()
            );
        }
    }
    found.pop().ok_or_else(|| NoMatch(format!("the execution {} has no runs", args.execution)).into())
}
