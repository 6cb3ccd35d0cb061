//! What a fault of the network does to each link.

use super::client_host;
use super::plan::{CLIENT_HOSTS, NetworkFault};
use crate::cluster::broker_name;
use crate::network::{NetworkState, ordered};

/// What a fault closes, makes shaky or slow.
pub fn state_of(fault: &NetworkFault, brokers: u16) -> NetworkState {
    let mut state = NetworkState::default();
    let all: Vec<i32> = (1..=i32::from(brokers)).collect();
    let others = |one: i32| all.iter().copied().filter(move |other| *other != one);
    let clients: Vec<String> = (0..CLIENT_HOSTS).map(client_host).collect();
    match fault {
        NetworkFault::Isolated(one) => {
            others(*one).for_each(|other| state.close(&broker_name(*one), &broker_name(other)));
        }
        NetworkFault::Disconnected(one) => {
            others(*one).for_each(|other| state.close(&broker_name(*one), &broker_name(other)));
            clients.iter().for_each(|client| state.close(&broker_name(*one), client));
        }
        NetworkFault::Halves(these, those) => {
            for one in these {
                those.iter().for_each(|other| state.close(&broker_name(*one), &broker_name(*other)));
            }
        }
        NetworkFault::OneWay(deaf, unheard) => state.close_one_way(&broker_name(*unheard), &broker_name(*deaf)),
        NetworkFault::Mute(one) => {
            others(*one).for_each(|other| state.close_one_way(&broker_name(*one), &broker_name(other)));
        }
        NetworkFault::MajorityRing => {
            // Each reaches its neighbours on the ring, so many that with itself they are a majority.
            let count = all.len();
            let reach = count / 4 + 1;
            for (index, one) in all.iter().enumerate() {
                for (place, other) in all.iter().enumerate().skip(index + 1) {
                    let distance = (place - index).min(count - (place - index));
                    if distance > reach / 2 + reach % 2 {
                        state.close(&broker_name(*one), &broker_name(*other));
                    }
                }
            }
        }
        NetworkFault::Bridge(bridge) => {
            let rest: Vec<i32> = others(*bridge).collect();
            let (these, those) = rest.split_at(rest.len() / 2);
            for one in these {
                those.iter().for_each(|other| state.close(&broker_name(*one), &broker_name(*other)));
            }
        }
        NetworkFault::ClientsCutOff(host, broker) => state.close(&client_host(*host), &broker_name(*broker)),
        // Which one it is was found out when the fault began.
        NetworkFault::ControllerIsolated => {}
        NetworkFault::Shaky(one) => {
            others(*one).for_each(|other| _ = state.shaky.insert(ordered(&broker_name(*one), &broker_name(other))));
        }
        NetworkFault::Slow(one, latency) => {
            for other in others(*one) {
                state.slow.insert(ordered(&broker_name(*one), &broker_name(other)), *latency);
            }
        }
    }
    state
}
