//! TCP sockets.

#[cfg(not(vltava_sim))]
pub use tokio::net::{TcpListener, TcpStream};

#[cfg(vltava_sim)]
pub use turmoil::net::{TcpListener, TcpStream};
