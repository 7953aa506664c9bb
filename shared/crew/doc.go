// Package crew says what a crew is: it turns the files of a deployment into a Definition, checks it, fills its
// placeholders, and keeps deployments with their numbered, immutable versions.
//
// A definition comes in one of two forms, told apart by the files that are there:
//
//   - crew.jsonc (or crew.json) with agents/<name>.jsonc: strict, an unknown field is an error;
//   - agents.yaml and tasks.yaml, at the top, in config/ or in src/<name>/config/, with the crew's own options in an optional
//     crew.yaml beside them or at the top: lenient, an unknown field is a Warning.
//
// Either way every error is collected and names its file and path, and what Muster cannot do yet is an error that names
// what to do instead; nothing is ignored in silence.
//
// # Records
//
//	Part        Sort                Body
//	D#<id>      DEPLOYMENT          Deployment as JSON; in the list deployments/<workspace>, ordered by id
//	V#<id>      FILES#<digest>      the version's files, a tar, as a blob
//	V#<id>      DEFINITION#<digest> what Parse made of them, JSON, as a blob
//	V#<id>      VERSION             Version as JSON, put last: with it the version exists
//
// A version's id is derived from its deployment and number, so two writers of the same number meet in one record and the
// loser finishes the winner's work before it takes the next number.
package crew
