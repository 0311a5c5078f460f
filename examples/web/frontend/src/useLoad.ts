import { useCallback, useEffect, useRef, useState } from "react";
import { ApiError } from "./api";

export interface Load<T> {
  /** The last that came; stays while it is loaded again, and if that fails. */
  value?: T;
  error?: ApiError;
  loading: boolean;
}

/** Loads something when the component appears, and again on demand. An answer that is overtaken by a later one is dropped. */
export function useLoad<T>(load: () => Promise<T>): [Load<T>, () => Promise<void>] {
  const [state, setState] = useState<Load<T>>({ loading: true });
  const latest = useRef(load);
  const round = useRef(0);
  useEffect(() => {
    latest.current = load;
  });
  const reload = useCallback(async () => {
    const mine = ++round.current;
    const settle = (next: (before: Load<T>) => Load<T>) => {
      if (mine === round.current) setState(next);
    };
    settle((before) => ({ ...before, loading: true }));
    try {
      const value = await latest.current();
      settle(() => ({ value, loading: false }));
    } catch (error) {
      const known = error instanceof ApiError ? error : new ApiError("internal");
      settle(({ value }) => ({ value, error: known, loading: false }));
    }
  }, []);
  useEffect(() => {
    void reload();
    return () => {
      round.current += 1;
    };
  }, [reload]);
  return [state, reload];
}

/**
 * As {@link useLoad}, for what is read from a bank. If the connection can no longer be used, `onChange` is told: the list
 * then shows it as it has become.
 */
export function useRead<T>(read: () => Promise<T>, onChange: () => void): [Load<T>, () => Promise<void>] {
  return useLoad(async () => {
    try {
      return await read();
    } catch (error) {
      if (error instanceof ApiError && CHANGED.includes(error.code)) onChange();
      throw error;
    }
  });
}

const CHANGED = ["connection_needs_attention", "connection_not_active", "not_found"];
