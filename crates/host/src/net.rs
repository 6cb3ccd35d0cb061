//! TCP sockets.

use std::future::Future;
use std::io;

use tokio::io::{AsyncWrite, AsyncWriteExt as _};

use crate::fs::{File, FileExt as _};

#[cfg(not(vltava_sim))]
pub use tokio::net::tcp::OwnedWriteHalf;
#[cfg(not(vltava_sim))]
pub use tokio::net::{TcpListener, TcpStream};

#[cfg(vltava_sim)]
pub use turmoil::net::tcp::OwnedWriteHalf;
#[cfg(vltava_sim)]
pub use turmoil::net::{TcpListener, TcpStream};

/// Opens a connection.
pub async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    #[allow(clippy::disallowed_methods, reason = "this is the seam")]
    TcpStream::connect((host, port)).await
}

/// Listens for connections.
pub async fn bind(host: &str, port: u16) -> io::Result<TcpListener> {
    #[allow(clippy::disallowed_methods, reason = "this is the seam")]
    TcpListener::bind((host, port)).await
}

/// A connection between two runtimes. A socket's readiness is reported by the runtime that registered it; one that
/// is to be served where a busy runtime cannot delay it has to be registered anew.
pub struct Detached {
    #[cfg(not(vltava_sim))]
    stream: std::net::TcpStream,
    #[cfg(vltava_sim)]
    stream: TcpStream,
}

impl Detached {
    /// Takes a connection out of the current runtime.
    pub fn detach(stream: TcpStream) -> io::Result<Self> {
        #[cfg(not(vltava_sim))]
        let stream = stream.into_std()?;
        Ok(Self { stream })
    }

    /// Registers the connection with the runtime that this is called on.
    pub fn attach(self) -> io::Result<TcpStream> {
        #[cfg(not(vltava_sim))]
        return TcpStream::from_std(self.stream);
        #[cfg(vltava_sim)]
        return Ok(self.stream);
    }
}

/// What takes bytes, and parts of files.
pub trait FileSink: AsyncWrite + Unpin + Send {
    /// Sends some of `length` bytes of `file` from `position` on, and returns how many; 0 if the file ends there. Cancelling
    /// it loses nothing that was counted. This one copies, as is right for a connection that encrypts.
    fn send_file(
        &mut self,
        file: &File,
        position: u64,
        length: usize,
    ) -> impl Future<Output = io::Result<usize>> + Send {
        async move {
            const MAX_BUFFER: usize = 256 << 10;
            let mut buffer = vec![0; length.min(MAX_BUFFER)];
            let count = file.read_at(&mut buffer, position)?;
            if count == 0 { Ok(0) } else { self.write(&buffer[..count]).await }
        }
    }
}

/// On a plain connection the bytes go from the page cache to the socket and never through this process. Pages that are
/// not cached are read from the disk meanwhile, which blocks: see [`crate::fs::is_in_memory`].
#[cfg(not(vltava_sim))]
impl FileSink for OwnedWriteHalf {
    async fn send_file(&mut self, file: &File, position: u64, length: usize) -> io::Result<usize> {
        let stream: &TcpStream = self.as_ref();
        // So that one fast client does not keep the thread for long.
        const MAX_AT_ONCE: usize = 1 << 20;
        let send = || {
            let mut position = position;
            Ok(rustix::fs::sendfile(stream, file, Some(&mut position), length.min(MAX_AT_ONCE))?)
        };
        stream.async_io(tokio::io::Interest::WRITABLE, send).await
    }
}

#[cfg(vltava_sim)]
impl FileSink for OwnedWriteHalf {}

/// A pipe within the process, for tests.
impl FileSink for tokio::io::DuplexStream {}
