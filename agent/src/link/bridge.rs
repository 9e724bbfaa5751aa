//! The link's end of the socket to the executor: what its tasks say and hear by channels, it says and hears in frames.

use std::{collections::HashMap, os::unix::net, sync::Arc};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Mutex, mpsc, oneshot},
};

use crate::{
    channel::{
        frame::{Frame, FrameError, Parser, encode},
        wire::{self, Ask, Ended, FromExecutor, FromLink, Held, Key, Stop},
    },
    messages::{Inventory, ToExecutor, ToLink},
};

/// Questions for the inventory that are not answered, by their numbers.
type Asked = Arc<Mutex<HashMap<u64, oneshot::Sender<Inventory>>>>;

/// How the conversation came to its end.
#[derive(Debug)]
pub enum Parted {
    /// The executor has ended, and this was said last.
    Stop { deliver: bool },
    /// Its process is gone.
    Gone,
    /// What it said cannot be understood.
    Failed(FrameError),
}

/// Carries messages until the executor ends. Then both channels are let go of: the link's tasks hear, and are told,
/// nothing more.
pub async fn carry(
    socket: net::UnixStream,
    mut from_tasks: mpsc::Receiver<ToExecutor>,
    to_tasks: mpsc::Sender<ToLink>,
) -> Parted {
    let connected = socket.set_nonblocking(true).and_then(|()| UnixStream::from_std(socket));
    let (mut reader, mut writer) = match connected {
        Ok(stream) => stream.into_split(),
        Err(error) => return Parted::Failed(error.into()),
    };
    let asked = Asked::default();
    tokio::select! {
        parted = hear(&mut reader, &to_tasks, &asked) => parted,
        parted = say(&mut writer, &mut from_tasks, &asked) => parted,
    }
}

async fn hear(reader: &mut OwnedReadHalf, to_tasks: &mpsc::Sender<ToLink>, asked: &Asked) -> Parted {
    let mut parser = Parser::<FromExecutor>::default();
    loop {
        let frame = match reader.read(parser.room()).await {
            // Also in the middle of a message: it was killed.
            Ok(0) => return Parted::Gone,
            Ok(bytes) => parser.filled(bytes),
            Err(error) => Err(error.into()),
        };
        let message = match frame {
            Ok(None) => continue,
            Ok(Some(frame)) if frame.kind == FromExecutor::Stop => {
                return match frame.message::<Stop>() {
                    Ok(stop) => Parted::Stop { deliver: stop.deliver },
                    Err(error) => Parted::Failed(error),
                };
            }
            Ok(Some(frame)) => understand(&frame, asked).await,
            Err(error) => Err(error),
        };
        match message {
            // Tasks that have ended are told nothing; the link is about to end then.
            Ok(Some(message)) => drop(to_tasks.send(message).await),
            Ok(None) => {}
            Err(error) => return Parted::Failed(error),
        }
    }
}

async fn understand(frame: &Frame<FromExecutor>, asked: &Asked) -> Result<Option<ToLink>, FrameError> {
    Ok(match frame.kind {
        FromExecutor::Report => Some(ToLink::Report(frame.message()?)),
        FromExecutor::OutputGrew => Some(ToLink::OutputGrew(wire::key(frame)?)),
        FromExecutor::Ended => {
            let Ended { key, report } = frame.message()?;
            let key = key.as_ref().and_then(Key::get);
            key.zip(report).map(|(key, report)| ToLink::Ended { key, report })
        }
        FromExecutor::Inventory => {
            let held: Held = frame.message()?;
            if let Some(reply) = asked.lock().await.remove(&held.number) {
                // Who asked may have gone.
                let _ = reply.send(held.inventory());
            }
            None
        }
        FromExecutor::Setup | FromExecutor::Stop => None,
    })
}

async fn say(
    writer: &mut OwnedWriteHalf,
    from_tasks: &mut mpsc::Receiver<ToExecutor>,
    asked: &Asked,
) -> Parted {
    let mut number = 0;
    loop {
        let frame = match from_tasks.recv().await {
            Some(ToExecutor::Order(envelope)) => encode(FromLink::Order, &envelope),
            Some(ToExecutor::Cancel(key)) => encode(FromLink::Cancel, &Key::from(key)),
            Some(ToExecutor::Settled(key)) => encode(FromLink::Settled, &Key::from(key)),
            Some(ToExecutor::Inventory(reply)) => {
                number += 1;
                asked.lock().await.insert(number, reply);
                encode(FromLink::Ask, &Ask { number })
            }
            // The tasks have ended, and the link is about to.
            None => std::future::pending().await,
        };
        match frame {
            Ok(frame) => {
                if writer.write_all(&frame).await.is_err() {
                    return Parted::Gone;
                }
            }
            Err(error) => tracing::error!(%error, "the executor cannot be told"),
        }
    }
}
