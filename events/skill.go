package events

var skillFamily = family{"skill", []fields{
	SkillUsed{},
}}

// SkillUsed is told when an agent uses a skill.
type SkillUsed struct {
	SkillName string `json:"skill_name"`
	SkillPath Text   `json:"skill_path"`
	// DisclosureLevel is 1 when the agent chose the skill, 2 or more when it was given in full from the start.
	DisclosureLevel int `json:"disclosure_level"`
}

func (SkillUsed) kind() Kind {
	return Kind{Type: "skill_used"}
}

// NewSkillUsed drafts skill_used.
func NewSkillUsed(who Identity, f SkillUsed) Draft { return draft(who, f) }
