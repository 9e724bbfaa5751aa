//! `opsctl logs`: the output of an execution, as lines of its targets or as the bytes of one.

use anyhow::Result;
use model::{
    api::{
        execution::Run,
        output::{OutputPiece, Stream},
    },
    id::ExecutionId,
};

use crate::{
    args::LogsArgs,
    client::Client,
    clock,
    exit::{Exit, NoMatch, Usage},
    follow,
    output::{self, Content, Tail, lines::Lines},
    raw::Shown,
};

/// # Errors
/// As the requests, when there is no such target, and when stdout is closed or full.
pub(crate) async fn run(client: &Client, args: LogsArgs) -> Result<Exit> {
    let query = query(&args)?;
    client.execution(args.execution).await?;
    if args.raw { raw(client, &args, query).await } else { lines(client, &args, query).await }
}

/// Writes the lines of all targets, or of one.
async fn lines(client: &Client, args: &LogsArgs, query: Query) -> Result<Exit> {
    let mut lines = Lines::new(output::wants_colour(Stream::Stdout), output::wants_colour(Stream::Stderr));
    if let Some(target) = &args.target {
        lines.expect(&find_run(client, args.execution, target).await?.target);
    } else if let Some(runs) = client.runs(args.execution, None).next().await? {
        runs.iter().for_each(|run| lines.expect(&run.target));
    }
    let mut sink = Sink::new(args);
    read(client, args, query, &mut sink, |piece, content| (piece.stream, lines.piece(piece, &content)))
        .await?;
    for (stream, bytes) in lines.finish() {
        sink.write(stream, &bytes)?;
    }
    sink.release()?;
    Ok(Exit::Succeeded)
}

/// Writes the bytes of one run as they are, and checks them where all of them were asked for and there is something
/// to check against.
async fn raw(client: &Client, args: &LogsArgs, query: Query) -> Result<Exit> {
    let run = match &args.target {
        Some(target) => find_run(client, args.execution, target).await?,
        None => only_run(client, args.execution).await?,
    };
    let only = args.stream.map(Stream::from);
    let mut shown = Shown::default();
    let mut sink = Sink::new(args);
    let ended = read(client, args, query, &mut sink, |piece, content| {
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
    let now = find_run(client, args.execution, &run.target).await?;
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
    sink: &mut Sink,
    mut form: impl FnMut(&OutputPiece, Content) -> (Stream, Vec<u8>),
) -> Result<bool> {
    let mut take = |sink: &mut Sink, mut piece: OutputPiece| {
        let content = Content::take(&mut piece)?;
        let (stream, bytes) = form(&piece, content);
        sink.write(stream, &bytes)
    };
    let mut after = None;
    if !args.follow || args.tail.is_some() {
        // The first of the lines may have begun in an earlier piece: with one more, all that are shown are whole.
        let tail = args.tail.map(|lines| ("tail", (u64::from(lines) + 1).to_string()));
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

async fn find_run(client: &Client, execution: ExecutionId, target: &str) -> Result<Run> {
    let mut pages = client.runs(execution, None);
    while let Some(runs) = pages.next().await? {
        if let Some(run) = runs.into_iter().find(|run| run.target == target) {
            return Ok(run);
        }
    }
    Err(NoMatch(format!("the execution {execution} has no target '{target}'")).into())
}

async fn only_run(client: &Client, execution: ExecutionId) -> Result<Run> {
    let mut runs = client.runs(execution, Some(2)).all().await?.into_iter();
    match (runs.next(), runs.next()) {
        (Some(run), None) => Ok(run),
        (Some(_), Some(_)) => Err(Usage(
            "the execution has several targets: say with --target whose bytes --raw is to write".into(),
        )
        .into()),
        (None, _) => Err(NoMatch(format!("the execution {execution} has no runs")).into()),
    }
}
