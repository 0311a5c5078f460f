import type { Connection } from "./api";
import { day, statusWords } from "./words";

/** What was disconnected, replaced, or never came about. */
export function EarlierConnections({ connections }: { connections: Connection[] }) {
  return (
    <details className="earlier">
      <summary>Earlier ({connections.length})</summary>
      <ul>
        {connections.map((connection) => {
          const { label, more } = statusWords(connection);
          return (
            <li key={connection.id}>
              <strong>{connection.bankName ?? "Bank"}</strong>, {day(connection.createdAt)}: {label}. {more}
            </li>
          );
        })}
      </ul>
    </details>
  );
}
