import { useEffect } from "react";
import { api, type Bank, type Start } from "./api";
import { ConnectBank } from "./ConnectBank";
import { ConnectionCard } from "./ConnectionCard";
import { EarlierConnections } from "./EarlierConnections";
import { Trouble } from "./Trouble";
import { useLoad } from "./useLoad";

const LOOK_AGAIN_MILLIS = 2_000;

export function Home({ start, user }: { start: Start; user: string }) {
  const [{ value: connections, error }, reload] = useLoad(api.connections);
  const underWay = connections?.some(({ status }) => status === "pending" || status === "revoking") ?? false;
  useLookAgain(underWay, reload);

  const current = connections?.filter(({ status }) => status === "active" || status === "pending");
  const earlier = connections?.filter((connection) => !current?.includes(connection));
  const bankOf = (id: Bank["id"]) => start.banks.find((bank) => bank.id === id);
  return (
    <>
      <section aria-labelledby="connect">
        <h1 id="connect">Your money in one place</h1>
        <p className="lead">
          Connect a bank to see its balances and transactions. Tally never sees your password, and never holds the key to your
          account.
        </p>
        <div className="links">
          {start.banks.map((bank) => (
            <ConnectBank key={bank.id} bank={bank} user={user} strongroomUrl={start.strongroomUrl} onChange={reload} />
          ))}
        </div>
      </section>

      <section aria-labelledby="banks">
        <h2 id="banks">Your banks</h2>
        {error && <Trouble error={error} onRetry={reload} />}
        {!connections && !error && <div className="card skeleton" role="status" aria-label="Loading your banks" />}
        {current?.length === 0 && <p className="empty">No bank is connected yet.</p>}
        {current?.map((connection) => {
          const bank = bankOf(connection.bank);
          if (!bank) return null;
          const props = { connection, bank, user, strongroomUrl: start.strongroomUrl, onChange: reload };
          // The key: what was read before the user logged in again is read anew.
          return <ConnectionCard key={`${connection.id} ${connection.status} ${connection.attention}`} {...props} />;
        })}
        {earlier && earlier.length > 0 && <EarlierConnections connections={earlier} />}
      </section>
    </>
  );
}

/** Looks again while something is under way, and when the page comes back into view. */
function useLookAgain(underWay: boolean, reload: () => Promise<void>) {
  useEffect(() => {
    const look = () => {
      if (!document.hidden) void reload();
    };
    document.addEventListener("visibilitychange", look);
    const timer = underWay ? setInterval(look, LOOK_AGAIN_MILLIS) : undefined;
    return () => {
      document.removeEventListener("visibilitychange", look);
      clearInterval(timer);
    };
  }, [underWay, reload]);
}
