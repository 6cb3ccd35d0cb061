//! TCP sockets.

use std::io;

#[cfg(not(vltava_sim))]
pub use tokio::net::{TcpListener, TcpStream};

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
