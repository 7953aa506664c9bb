package rank

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestSentences(t *testing.T) {
	cases := []struct {
		name, text string
		want       []string
	}{
		{"end at marks, not at abbreviations and numbers", `It costs 4.50 (e.g. for Mr. Smith). Really? "Yes." The U.S. pays.`,
			[]string{"It costs 4.50 (e.g. for Mr. Smith).", "Really?", `"Yes."`, "The U.S. pays."}},
		{"lines of lists lose their marks", "# Plans\n\n- Basic: 10 seats\n* Pro\n1. First\n> quoted", []string{"Plans", "Basic: 10 seats", "Pro", "First", "quoted"}},
		{"wrapped prose is joined", "The payment service lost its connection to the primary database at\nnoon and came back an hour later. Nobody\nnoticed.",
			[]string{"The payment service lost its connection to the primary database at noon and came back an hour later.", "Nobody", "noticed."}},
		{"lines of a log are not", "2026-03-01T10:00:01Z checkout ERROR cannot reach the database primary-1\n2026-03-01T10:00:02Z checkout ERROR cannot reach the database primary-1 again",
			[]string{"2026-03-01T10:00:01Z checkout ERROR cannot reach the database primary-1", "2026-03-01T10:00:02Z checkout ERROR cannot reach the database primary-1 again"}},
		{"nor are those of a form", "Subject: the invoice of March shows the wrong address of our company\nFrom: Ana", []string{
			"Subject: the invoice of March shows the wrong address of our company", "From: Ana"}},
		{"rules and blanks are nothing", "----\n\n| --- | --- |\n  \n***", nil},
		{"other scripts end too", "価格は高い。とても。", []string{"価格は高い。", "とても。"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, Sentences(c.text)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestEachSentenceStandsInItsText(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringMatching(`([A-Za-z0-9.!?"' \n#*-]|。|é){0,200}`).Draw(t, "text")
		flat := strings.Join(strings.Fields(text), " ")
		for _, s := range Sentences(text) {
			if !strings.Contains(text, s) && !strings.Contains(flat, strings.Join(strings.Fields(s), " ")) {
				t.Fatalf("%q is not in %q", s, text)
			}
		}
	})
}

func TestRelativesAreOneWord(t *testing.T) {
	for _, family := range [][]string{{"price", "Prices", "priced", "pricing"}, {"plan", "plans", "planned", "planning"}, {"company", "companies", "company's"}, {"reset", "resets", "resetting"}} {
		for _, w := range family {
			if Normal(w) != Normal(family[0]) {
				t.Errorf("%s is %q, %s is %q", w, Normal(w), family[0], Normal(family[0]))
			}
		}
	}
}

func TestTheDocumentWithTheRareWordWins(t *testing.T) {
	x := New([]string{"The plan has seats.", "The plan has single sign-on and seats.", "The weather."})
	scores := x.Score(Words("Which plans have single sign-on?"))
	if !(scores[1] > scores[0] && scores[0] > scores[2] && scores[2] == 0) {
		t.Errorf("got %v", scores)
	}
}

func FuzzSentences(f *testing.F) {
	f.Add("One. Two\n- three")
	f.Fuzz(func(_ *testing.T, text string) {
		for _, s := range Sentences(text) {
			_ = Words(s)
		}
	})
}
