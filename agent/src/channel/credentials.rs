//! Who wrote what is read, as the kernel says it with every piece of a socket's stream.

use std::{
    io::{self, IoSliceMut},
    mem::MaybeUninit,
    os::fd::AsFd,
};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg, sockopt};

/// A process and its user, as the kernel knows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    pub pid: u32,
    pub uid: u32,
    pub gid: u32,
}

/// From now on the kernel says at this end of a socket who writes at the other.
///
/// # Errors
/// When it is no local socket.
pub fn ask_for(socket: impl AsFd) -> io::Result<()> {
    Ok(sockopt::set_socket_passcred(socket, true)?)
}

/// Reads what `expected` has written; nothing at the end of the stream. Descriptors that come with it are closed.
///
/// # Errors
/// When the socket fails or has nothing now, when somebody else wrote it, or when there were descriptors.
pub fn read_from(socket: impl AsFd, buffer: &mut [u8], expected: Peer) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let read = recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut writer = None;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmCredentials(found) = message {
            writer = Some(Peer {
                pid: u32::try_from(found.pid.as_raw_nonzero().get()).unwrap_or(0),
                uid: found.uid.as_raw(),
                gid: found.gid.as_raw(),
            });
        }
    }
    if read.flags.contains(ReturnFlags::CTRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it sends descriptors, which nobody takes"));
    }
    if read.bytes == 0 {
        return Ok(0);
    }
    if writer == Some(expected) {
        Ok(read.bytes)
    } else {
        let text = format!("it was written by {writer:?}, and expected of {expected:?}");
        Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
    }
}
