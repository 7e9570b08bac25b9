// Package view turns the events of the log into what crimux's commands print:
// rows and tables for people, records for programs. It is pure: it reads no
// clock, no file and no terminal, and is given the events one after the other
// together with the state before each, so that what it holds is bounded by the
// node's live state and not by the log's length.
//
// # Output rules
//
//   - One event or operation is one line; nothing from the log can break it:
//     what a terminal would act on is replaced.
//   - Words are those of the field: RunPodSandbox, READY, EXITED, NotFound,
//     exit 137 (OOMKilled). A missing value is "-".
//   - Columns are aligned and never cut. The last one is free text.
//   - Colour carries nothing that the words do not say.
//   - Times are relative for people, and exact where that was asked for.
//   - The data of a step is for the backend that wrote it and is shown to
//     nobody, in no form.
//   - JSON is one object per line. Fields may be added; none is renamed.
package view
