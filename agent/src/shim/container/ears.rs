//! What the shim hears while it waits for the engine: its agent, and signals.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Instant,
};

use model::Reason;
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{signal::Signal, signalfd::SignalFd},
};
use tokio::io::unix::AsyncFd;

use crate::{shim::control::Control, sys::watch};

/// The files to listen to, each registered by a copy of its descriptor, which outlives whatever happens to the original.
#[derive(Debug)]
pub(super) struct Ears<'a> {
    pub(super) control: &'a mut Control,
    signals: &'a SignalFd,
    signals_ready: AsyncFd<OwnedFd>,
    listener_ready: AsyncFd<OwnedFd>,
    connection_ready: Option<AsyncFd<OwnedFd>>,
    /// Why the run is to end, if somebody said so. A cancel counts more than the host's own wish.
    wish: Option<Reason>,
}

impl<'a> Ears<'a> {
    pub(super) fn new(control: &'a mut Control, signals: &'a SignalFd) -> io::Result<Self> {
        let signals_ready = watch(signals.as_fd())?;
        let listener_ready = watch(control.listener())?;
        let mut ears =
            Self { control, signals, signals_ready, listener_ready, connection_ready: None, wish: None };
        ears.connection_ready = ears.watch_connection();
        Ok(ears)
    }

    /// Why the run is to end.
    pub(super) fn wish(&self) -> Option<Reason> {
        self.wish
    }

    /// Somebody here wants it to end.
    pub(super) fn want(&mut self, why: Reason) {
        self.wish.get_or_insert(why);
    }

    /// Takes the wish.
    pub(super) fn take_wish(&mut self) -> Option<Reason> {
        self.wish.take()
    }

    /// Listens until the answer is there.
    pub(super) async fn meanwhile<T>(&mut self, answer: impl Future<Output = T>) -> T {
        let mut answer = std::pin::pin!(answer);
        loop {
            tokio::select! {
                answer = &mut answer => return answer,
                () = self.hear() => {}
            }
        }
    }

    /// Listens until the answer is there, unless somebody wants the run to end or its time is over before: then says why.
    pub(super) async fn until<T>(
        &mut self,
        deadline: Instant,
        answer: impl Future<Output = T>,
    ) -> Result<T, Reason> {
        let mut answer = std::pin::pin!(answer);
        loop {
            if let Some(why) = self.wish {
                return Err(why);
            }
            tokio::select! {
                answer = &mut answer => return Ok(answer),
                () = self.hear() => {}
                () = tokio::time::sleep_until(deadline.into()) => return Err(Reason::TimeLimit),
            }
        }
    }

    /// Waits until something is heard, and deals with it.
    pub(super) async fn hear(&mut self) {
        tokio::select! {
            () = ready(&self.signals_ready) => {}
            () = ready(&self.listener_ready) => {}
            () = async {
                match &self.connection_ready {
                    Some(connection) => ready(connection).await,
                    None => std::future::pending().await,
                }
            } => {}
        }
        while let Ok(Some(signal)) = self.signals.read_signal() {
            if i32::try_from(signal.ssi_signo) == Ok(Signal::SIGTERM as i32) {
                self.want(Reason::HostStopping);
            }
        }
        let mut is_new = false;
        while has_something(self.control.listener()) {
            is_new = true;
            if self.control.accept() {
                self.wish = Some(Reason::Cancelled);
            }
        }
        while self.control.connection().is_some_and(has_something) {
            if self.control.receive() {
                self.wish = Some(Reason::Cancelled);
            }
        }
        if is_new || self.control.connection().is_none() {
            self.connection_ready = self.watch_connection();
        }
    }

    fn watch_connection(&self) -> Option<AsyncFd<OwnedFd>> {
        // One that cannot be watched is not heard; the agent connects anew when it has to.
        self.control.connection().and_then(|connection| watch(connection).ok())
    }
}

/// Waits until there may be something. Whoever waited reads until there is nothing.
pub(super) async fn ready(file: &AsyncFd<OwnedFd>) {
    match file.readable().await {
        Ok(mut guard) => guard.clear_ready(),
        // The runtime is ending.
        Err(_) => std::future::pending().await,
    }
}

fn has_something(fd: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO).is_ok_and(|found| found > 0)
}
