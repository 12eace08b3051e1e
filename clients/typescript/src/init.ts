/** Requests as plain objects. */

import type { Message } from "@bufbuild/protobuf";

// protobuf-es has such a type too, but as a union with the message itself, of which editors show no comments.
/** The fields of a message as a plain object, each optional, with its description. */
export type Init<T extends Message> = {
  [P in keyof T as P extends "$typeName" | "$unknown" ? never : P]?: InitField<T[P]> | undefined;
};

type InitField<T> = T extends Uint8Array
  ? T
  : T extends readonly (infer U)[]
    ? InitField<U>[]
    : T extends Message
      ? Init<T>
      : T;
